"""Measure how hard the simulated screen is: the calibration figures of docs/simulator.md.

At full size (91,205 x 5,045, 282 conditions) one mask takes some 15 minutes on one core:

    python benchmarks/calibrate_simulator.py --conditions 282 --cells 91205 --genes 5045 --masks own all_targets
"""

import argparse
import json
import resource
import time

import numpy as np
import pandas as pd
from anndata import AnnData

from reverse_perturbation.config import load_params
from reverse_perturbation.data.screen.genes import load_aliases
from reverse_perturbation.data.screen.mask import apply_mask, depths
from reverse_perturbation.data.screen.normalize import log1p_cp10k
from reverse_perturbation.data.split import split_cells
from reverse_perturbation.metrics import registry
from reverse_perturbation.models.baselines.pca import Config, Pca
from reverse_perturbation.models.linear.logreg import LogisticRegression
from reverse_perturbation.models.scgpt.encoder.vocabulary import default_vocabulary
from reverse_perturbation.prepare.simulate import simulate
from reverse_perturbation.retrieval.library import LibraryRanker
from reverse_perturbation.sections import Simulated

REPORTED = (
    "exact_hit@1",
    "exact_hit@5",
    "exact_hit@10",
    "relevant_hit@1",
    "mrr@10",
    "macro_hit@1",
    "confidence_auc",
)


def audit(cells: AnnData) -> dict[str, object]:
    """Describe the counts as lessons.md describes the Norman file's."""
    counts = cells.layers["counts"]
    return {
        "shape": list(cells.shape),
        "labels": int(cells.obs["condition"].nunique()),
        "controls": int(cells.obs["control"].sum()),
        "non_zero": round(counts.nnz / np.prod(counts.shape), 4),
        "expressed_genes_a_cell": round(float(np.diff(counts.indptr).mean()), 1),
        "library_size_p5_p50_p95": np.percentile(depths(cells), [5, 50, 95]).round().tolist(),
        "largest_count": int(counts.data.max()),
    }


def difficulty(cells: AnnData, mask: str, space: str, iterations: int) -> dict[str, object]:
    """Fit the earlier project's two baselines on reference + validation cells and rank the query cells."""
    split = split_cells(cells.obs, seed=42, label_space=space)
    masked = apply_mask(cells, mask)
    expression = log1p_cp10k(masked.counts, masked.totals)[cells.obs_names.get_indexer(split["cell"])]
    labels, query = split["condition"].to_numpy(dtype=object), (split["part"] == "query").to_numpy()
    found: dict[str, object] = {"reference": int((~query).sum()), "query": int(query.sum())}

    start = time.perf_counter()
    logreg = LogisticRegression("none", 1.0, iterations).fit(expression[~query], labels[~query])
    found["logreg_iterations"], found["logreg_seconds"] = logreg.n_iter, round(time.perf_counter() - start)
    found["logreg"] = report(logreg.scores(expression[query]), labels[query], logreg.conditions)

    embedding = Pca(Config(components=50, seed=0)).fit(expression[~query]).embed(expression)
    ranker = LibraryRanker(load_params().library)
    ranker.fit(embedding[~query], labels[~query])
    found["pca"] = report(ranker.scores(embedding[query]), labels[query], ranker.conditions)
    return found


def report(scores: np.ndarray, labels: np.ndarray, conditions: np.ndarray) -> dict[str, float]:
    """Return the metrics that prior_results.csv has."""
    values = registry.compute(scores, labels, conditions)
    return {name: round(values[name], 4) for name in REPORTED}


def main() -> None:
    """Simulate, describe, fit, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", default="data/norman_conditions.csv")
    parser.add_argument("--conditions", type=int, default=40)
    parser.add_argument("--cells", type=int, default=6000)
    parser.add_argument("--genes", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--masks", nargs="+", default=["none", "own", "all_targets"])
    parser.add_argument("--labels", default="legacy", choices=["legacy", "canonical"])
    parser.add_argument("--iterations", type=int, default=100, help="of lbfgs")
    args = parser.parse_args()
    config = Simulated(n_conditions=args.conditions, n_cells=args.cells, n_genes=args.genes, seed=args.seed)
    start = time.perf_counter()
    cells = simulate(pd.read_csv(args.table), config, list(default_vocabulary()), load_aliases())
    seconds = round(time.perf_counter() - start, 1)
    gigabytes = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    print(json.dumps({**config.model_dump(), "simulate_seconds": seconds, "peak_gib": gigabytes, **audit(cells)}))
    for mask in args.masks:
        found = difficulty(cells, mask, args.labels, args.iterations)
        print(json.dumps({"mask": mask, "labels": args.labels, **found}), flush=True)


if __name__ == "__main__":
    main()
