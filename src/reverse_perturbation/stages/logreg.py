"""Fit logistic regression and ask it about every cell.

Three of them: ``prior``, as the earlier project had it; ``tuned`` on the validation part; and ``library_size``, tuned
and given a cell's library size beside its expression. A transformer can tell the library size from its tokens (a single
count has the value log1p(1e4 / library size)), a linear model of expression cannot: this shows what that is worth.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from reverse_perturbation.config import Params
from reverse_perturbation.data.fingerprint import fingerprint
from reverse_perturbation.data.normalize import COUNTS_PER
from reverse_perturbation.models.logreg import LogisticRegression, tune
from reverse_perturbation.retrieval.outputs import Outputs
from reverse_perturbation.stages.arguments import parser, run
from reverse_perturbation.stages.screen import SCREEN, screen_of
from reverse_perturbation.storage import write_text

LIBRARY_COLUMNS = ["log library size", "its square"]


def library_size(totals: np.ndarray) -> sp.csr_matrix:
    """Return CSR float32 [n, 2]: log of the library size in units of ten thousand, and its square.

    ``totals`` [n] are library sizes after the mask; a cell without counts is given that of ten thousand.
    """
    log = np.log(np.where(totals > 0, totals, COUNTS_PER) / COUNTS_PER)
    return sp.csr_matrix(np.stack([log, log**2], axis=1), dtype=np.float32)


def logreg(args: argparse.Namespace, params: Params) -> None:
    """Write the two fits' models and outputs."""
    screen = screen_of(args, params)
    expression, columns = screen.log1p(), list(screen.genes)
    if args.kind == "library_size":
        expression, columns = sp.hstack([expression, library_size(screen.totals)]).tocsr(), columns + LIBRARY_COLUMNS
    reference, validation = screen.rows("reference"), screen.rows("validation")
    if args.kind == "prior":
        model = LogisticRegression(scaling="none", c=1.0, max_iter=params.logreg.max_iter)
        model.fit(expression[reference], screen.conditions[reference])
    else:
        model, table = tune(
            expression[reference],
            screen.conditions[reference],
            expression[validation],
            screen.conditions[validation],
            params.logreg,
        )
        write_text(
            Path(args.model) / "choices.csv",
            table.to_csv(index=False, float_format="%.6g", lineterminator="\n"),
        )
        print(f"logreg: chosen on {len(validation):,} validation cells: scaling {model.scaling}, C {model.c:g}")
    for fit, rows in (("selection", reference), ("final", np.concatenate([reference, validation]))):
        if fit == "final":
            model = model.fresh().fit(expression[rows], screen.conditions[rows], start=model)
        model.save(Path(args.model) / fit, columns)
        Outputs(
            cells=screen.cells,
            log_proba=model.log_proba(expression),
            conditions=model.conditions,
            embedding=None,
            screen_sha256=fingerprint(screen),
        ).save(Path(args.outputs) / f"{fit}.npz")
        print(f"logreg {args.kind}: {fit} fit on {len(rows):,} cells, {model.n_iter} iterations")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = parser(__doc__, *SCREEN)
    arguments.add_argument(
        "--kind", required=True, choices=["prior", "tuned", "library_size"], help="which configuration"
    )
    arguments.add_argument("--model", required=True, help="folder for the fitted models")
    arguments.add_argument("--outputs", required=True, help="folder for the class probabilities")
    run(logreg, arguments, argv)


if __name__ == "__main__":
    main()
