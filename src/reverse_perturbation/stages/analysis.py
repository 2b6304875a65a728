"""Calibrate every model, sort its errors, and say what could be reached at all."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reverse_perturbation.analysis import averaged, calibration, ceilings, effects, errors
from reverse_perturbation.analysis.agreement import agreement
from reverse_perturbation.analysis.oracle import Oracle
from reverse_perturbation.conditions import genes_of
from reverse_perturbation.config import Analysis, Params
from reverse_perturbation.data.screen import CONTROL_PART, Screen, load_screen
from reverse_perturbation.data.simulate import Truth
from reverse_perturbation.data.vocab import load_aliases
from reverse_perturbation.models.pca import Pca
from reverse_perturbation.models.scgpt.vocabulary import default_vocabulary
from reverse_perturbation.retrieval import metrics
from reverse_perturbation.retrieval.evaluate import Evaluator, Scores, Setting
from reverse_perturbation.retrieval.outputs import Outputs
from reverse_perturbation.stages.arguments import parser, run
from reverse_perturbation.stages.evaluator import evaluator_of
from reverse_perturbation.stages.screen import SCREEN, screen_of
from reverse_perturbation.storage import write_json, write_text

LIBRARY = ("reference", "validation")
BOUNDED = ("exact_hit@1", "exact_hit@5", "mrr", "ndcg@5")


def analyse(args: argparse.Namespace, params: Params) -> None:
    """Write the tables and the few figures that stand among the metrics."""
    screen = screen_of(args, params, controls=True)
    embedding = Pca.load(Path(args.pca) / "final").embed(screen.log1p())
    facts, similarity = describe(screen, embedding)
    evaluator = evaluator_of(args.cells, args.split, params)
    files = {f"{model}-{seed}": f"{model}-{seed}" for model in params.models for seed in params.seeds}
    files |= {f"{name}-{params.split.seed}": name for name in args.baselines}
    tables: dict[str, list[pd.DataFrame]] = {}
    for name, model in files.items():
        found = Scores.load(Path(args.scores) / f"{name}.npz")
        of_run = of_answers(evaluator, Path(args.outputs) / model, found, params)
        of_run |= errors.tables(found, facts, similarity, params.analysis.similar)
        for table, rows in of_run.items():
            tables.setdefault(table, []).append(rows.assign(run=name))
    bound: dict[str, Any] = {}
    if params.data.source == "simulated":
        bound, of_bound = simulator_bound(args, params, evaluator)
        tables["averaged"].append(of_bound.assign(run=averaged.BOUND))
    written = {name: pd.concat(of_runs, ignore_index=True) for name, of_runs in tables.items()}
    written |= {"facts": facts, "split_half": reachable(screen, embedding, params.analysis)}
    for name, content in written.items():
        text = content.to_csv(index=False, float_format="%.6f", lineterminator="\n")
        write_text(Path(args.tables) / f"{name}.csv", text)
    write_json(args.metrics, summary(written, twin_cap(evaluator.legacy, evaluator.parts)) | bound)
    print(f"analysis: {len(files)} runs, {len(facts)} conditions, tables in {args.tables}")


def describe(screen: Screen, embedding: np.ndarray) -> tuple[pd.DataFrame, np.ndarray]:
    """Return what is known of each condition from its reference cells, and how alike the profiles are.

    Returns
    -------
    facts, similarity
        One row a condition: ``condition``, ``genes`` (perturbed), ``reference_cells`` (validation's included),
        ``e_distance`` to control (NaN without two control cells); and float64 [n_conditions, n_conditions].
    """
    rows = screen.rows(*LIBRARY)
    cells, labels = embedding[rows], screen.conditions[rows]
    conditions = np.array(sorted(set(labels)), dtype=object)
    control = embedding[screen.rows(CONTROL_PART)]
    facts = pd.DataFrame(
        {
            "condition": conditions,
            "genes": [len(genes_of(name)) for name in conditions],
            "reference_cells": [int((labels == name).sum()) for name in conditions],
            "e_distance": [
                effects.e_distance(cells[labels == name], control) if len(control) > 1 else np.nan
                for name in conditions
            ],
        }
    )
    return facts, effects.similarity(effects.mean_profiles(cells, labels, conditions))


def reachable(screen: Screen, embedding: np.ndarray, config: Analysis) -> pd.DataFrame:
    """Halve the library's cells and let one half retrieve the other."""
    rows = screen.rows(*LIBRARY)
    return ceilings.split_half(
        embedding[rows], screen.conditions[rows], config.averaged, draws=config.draws, seed=config.seed
    )


def of_answers(evaluator: Evaluator, outputs: Path, found: Scores, params: Params) -> dict[str, pd.DataFrame]:
    """Judge the confidence of a run's answers, and ask it about more and more cells."""
    selection, final = (Outputs.load(outputs / f"{fit}.npz") for fit in ("selection", "final"))
    setting = evaluator.headline(selection, params.evaluate.ranking)
    held_out = evaluator.scores(selection, replace(setting, query="cell"), ("reference",), "validation")
    tables = calibration.tables(found, held_out, setting.ranking, params.analysis)
    if final.embedding is not None:
        votes = calibration.measures(found, {"agreement": agreement(evaluator, final, setting, found)})
        tables["confidence"] = pd.concat([tables["confidence"], votes])
    return tables | {"averaged": of_sizes(evaluator, final, params.analysis)}


def of_sizes(evaluator: Evaluator, outputs: Outputs, config: Analysis) -> pd.DataFrame:
    """Ask a model about more and more cells, by its classifier and by the section library, where it has them."""
    rankings = ["classifier"] if outputs.log_proba is not None else []
    rankings += [evaluator.library.kind] if outputs.embedding is not None else []
    tables = [
        averaged.by_size(evaluator, config.averaged, ranking, lambda sized, setting: sized.scores(outputs, setting))
        for ranking in rankings
    ]
    return pd.concat(tables, ignore_index=True)


def simulator_bound(
    args: argparse.Namespace, params: Params, evaluator: Evaluator
) -> tuple[dict[str, dict[str, float]], pd.DataFrame]:
    """Return what no model can be expected to surpass on the headline's queries, and by number of cells."""
    data = params.data
    truth = Truth.draw(pd.read_csv(data.path), data.simulated, list(default_vocabulary()), load_aliases())
    oracle = Oracle.of(
        truth, load_screen(args.cells, args.split, args.genes, mask=params.mask, genes="all"), params.mask
    )
    headline = oracle.scores(evaluator, Setting("posterior", params.query.kind, params.labels))
    found = metrics.compute(headline.scores, headline.labels, headline.conditions)
    rows = averaged.by_size(
        evaluator,
        params.analysis.averaged,
        "posterior",
        lambda sized, setting: oracle.scores(sized, setting, equal=True),
    )
    return {"simulator_bound": {name: found[name] for name in BOUNDED}}, rows


def twin_cap(legacy: np.ndarray, parts: np.ndarray) -> dict[str, float]:
    """Measure one who knows every query's perturbation, in the legacy label space."""
    library = legacy[np.isin(parts, LIBRARY)].astype(str)
    conditions = np.unique(library).astype(object)
    labels = legacy[parts == "query"]
    scores = ceilings.twin_scores(labels, conditions, library)
    found = metrics.compute(scores, labels, conditions)
    return {name: found[name] for name in ("exact_hit@1", "exact_hit@5", "macro_hit@1", "mrr", "ndcg@5")}


def summary(tables: dict[str, pd.DataFrame], cap: dict[str, float]) -> dict[str, Any]:
    """Choose what stands among the metrics."""
    calibrated = tables["calibration"].set_index("run")
    reach = tables["split_half"]
    overall = reach.groupby("averaged", sort=False)[["exact_hit@1", "mrr"]].mean()
    counted = reach.groupby("averaged").size().to_dict()
    return {
        "calibration": {
            name: {key: float(row[key]) for key in ("temperature", "ece_before", "ece_after", "ece_if_calibrated")}
            for name, row in calibrated.to_dict("index").items()
        },
        "twin_cap_of_legacy_labels": cap,
        "split_half": {
            name: {key: float(value) for key, value in row.items()} | {"conditions": int(counted[name])}
            for name, row in overall.to_dict("index").items()
        },
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = parser(__doc__, *SCREEN)
    arguments.add_argument("--pca", required=True, help="folder of the fitted principal components")
    arguments.add_argument("--outputs", required=True, help="folder of the models' outputs")
    arguments.add_argument("--scores", required=True, help="folder of the score files")
    arguments.add_argument("--baselines", required=True, nargs="+", help="names of the baselines")
    arguments.add_argument("--tables", required=True, help="folder for the tables, .csv")
    arguments.add_argument("--metrics", required=True, help="where to write the few figures among the metrics, .json")
    run(analyse, arguments, argv)


if __name__ == "__main__":
    main()
