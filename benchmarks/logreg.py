"""Time the baseline's fit against scikit-learn's lbfgs on a simulated screen, side by side, and print a table.

    python benchmarks/logreg.py                                             # the default screen
    python benchmarks/logreg.py --conditions 282 --cells 91205 --genes 5045 --c 0.01 --repeats 1 --most 240   # an hour

Both minimise the same objective on the same matrix; scikit-learn stops at its own tolerance or after ``--most``
iterations. Where it ends above this project's minimum, a third fit stops as soon as it is as low, so that one sees what
the same objective takes. The last rows are the path over all C of params.yaml: each fit from scratch, as one would with
scikit-learn, and so with this project's, against each from the one before.
"""

import argparse
import statistics
import warnings
from bisect import bisect_left
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import scipy.sparse as sp
from machine import machine
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression as Sklearn
from timing import in_turn, spread

from reverse_perturbation.data.screen.genes import load_aliases
from reverse_perturbation.data.screen.mask import apply_mask
from reverse_perturbation.data.screen.normalize import log1p_cp10k
from reverse_perturbation.data.split import split_cells
from reverse_perturbation.metrics import registry
from reverse_perturbation.models.linear.softmax import fit_softmax
from reverse_perturbation.models.scgpt.encoder.vocabulary import default_vocabulary
from reverse_perturbation.prepare.simulate import simulate
from reverse_perturbation.report.markdown import markdown
from reverse_perturbation.sections import Simulated

PATH = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # values of C, each fit started from the one before
Weights = tuple[np.ndarray, np.ndarray]


def screen(config: Simulated) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray]:
    """Return expression float64 CSR, class numbers, and whether a cell is a query, of a simulated screen, mask own."""
    cells = simulate(pd.read_csv("data/norman_conditions.csv"), config, list(default_vocabulary()), load_aliases())
    split = split_cells(cells.obs, seed=42, label_space="legacy")
    masked = apply_mask(cells, "own")
    rows = cells.obs_names.get_indexer(split["cell"])
    expression = sp.csr_matrix(log1p_cp10k(masked.counts, masked.totals)[rows], dtype=np.float64)
    _, code = np.unique(split["condition"].astype(str), return_inverse=True)
    return expression, code, (split["part"] == "query").to_numpy()


def theirs(x: sp.csr_matrix, y: np.ndarray, c: float, most: int = 5000) -> tuple[Weights, int]:
    """Fit as the earlier project did, but stopped at its own tolerance or after `most` iterations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = Sklearn(C=c, max_iter=most).fit(x, y)
    return (model.coef_, model.intercept_), int(model.n_iter_[0])


def ours(
    x: sp.csr_matrix, y: np.ndarray, c: float, start: Weights | None = None, most: int = 500
) -> tuple[Weights, int]:
    """Fit as this project does."""
    found = fit_softmax(x, y, c, most, start)
    return (found.coef, found.intercept), found.n_iter


def scratch(x: sp.csr_matrix, y: np.ndarray, cs: list[float], fit: Callable[..., tuple[Weights, int]]) -> int:
    """Fit every C from nothing and return all iterations."""
    return sum(fit(x, y, c)[1] for c in cs)


def warm(x: sp.csr_matrix, y: np.ndarray, cs: list[float]) -> int:
    """Fit every C from the one before, as this project does, and return all iterations."""
    iterations, weights = 0, None
    for c in sorted(cs):
        weights, n = ours(x, y, c, weights)
        iterations += n
    return iterations


def objective(weights: Weights, x: sp.csr_matrix, y: np.ndarray, c: float) -> float:
    """Return mean cross-entropy plus the penalty."""
    log_proba = log_softmax(x @ weights[0].T + weights[1], axis=1)
    return float(-log_proba[np.arange(len(y)), y].mean() + (weights[0] ** 2).sum() / (2 * c * len(y)))


def reaches(x: sp.csr_matrix, y: np.ndarray, c: float, goal: float, most: int) -> int:
    """Return after how many iterations, of at most so many, this project's fit has an objective."""
    return bisect_left(range(most), True, key=lambda n: objective(ours(x, y, c, most=n)[0], x, y, c) <= goal)


def times(seconds: dict[str, list[float]], prefix: str) -> dict[str, dict[str, object]]:
    """Return the columns of the times, by name."""
    middle = {name: statistics.median(each) for name, each in seconds.items()}
    return {
        name: {"fit": f"{prefix}, {name}", "seconds": middle[name], "range": spread(each)}
        | {"times faster": middle["theirs"] / middle[name]}
        for name, each in seconds.items()
    }


def measured(
    x: sp.csr_matrix, y: np.ndarray, c: float, most: int, repeats: int
) -> tuple[dict[str, list[float]], dict[str, tuple[Weights, int]], dict[str, float]]:
    """Fit in both ways, and as low as scikit-learn's: seconds, weights with iterations, and objectives, by name."""
    seconds, found = in_turn({"theirs": partial(theirs, x, y, c, most), "ours": partial(ours, x, y, c)}, repeats)
    reached = {name: objective(weights, x, y, c) for name, (weights, _) in found.items()}
    if reached["theirs"] > reached["ours"]:
        name = "ours, as low as theirs"
        low = partial(ours, x, y, c, most=reaches(x, y, c, reached["theirs"], found["ours"][1]))
        more, last = in_turn({name: low}, repeats)
        seconds, found = seconds | more, found | last
        reached[name] = objective(found[name][0], x, y, c)
    return seconds, found, reached


def main() -> None:
    """Simulate, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conditions", type=int, default=40)
    parser.add_argument("--cells", type=int, default=6000)
    parser.add_argument("--genes", type=int, default=600)
    parser.add_argument("--c", type=float, nargs="+", default=[0.03, 1.0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--most", type=int, default=5000, help="scikit-learn's iterations at most")
    parser.add_argument("--path", action="store_true", help="also the path over all C of params.yaml")
    args = parser.parse_args()
    x, code, query = screen(Simulated(n_conditions=args.conditions, n_cells=args.cells, n_genes=args.genes, seed=0))
    known, y, names = x[~query], code[~query], np.unique(code).astype(str).astype(object)
    about = [
        f"{known.shape[0]:,} cells x {known.shape[1]:,} genes",
        f"{known.nnz:,} values",
        f"{len(names)} conditions",
    ]
    print(f"{machine()}\n\n{', '.join(about)}, mask own, legacy labels; medians of {args.repeats}\n")
    rows = []
    for c in args.c:
        seconds, found, reached = measured(known, y, c, args.most, args.repeats)
        for name, columns in times(seconds, f"C {c:g}").items():
            (coef, intercept), iterations = found[name]
            value = registry.compute(x[query] @ coef.T + intercept, code[query].astype(str).astype(object), names)
            rows.append(
                columns
                | {"iterations": str(iterations)}
                | {"objective above the lowest": f"{reached[name] / min(reached.values()) - 1:.1e}"}
                | {each: value[each] for each in ("exact_hit@1", "mrr")}
            )
    if args.path:
        cs = PATH
        paths = {
            "theirs": partial(scratch, known, y, cs, theirs),
            "ours, from scratch": partial(scratch, known, y, cs, ours),
            "ours": partial(warm, known, y, cs),
        }
        path, iterations_of = in_turn(paths, args.repeats)
        for name, columns in times(path, f"{len(cs)} C").items():
            rows.append(columns | {"iterations": str(iterations_of[name])})
    print(markdown(pd.DataFrame(rows)))


if __name__ == "__main__":
    main()
