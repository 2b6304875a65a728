"""Fit logistic regression, as the earlier project did or tuned on the validation part, and ask it about every cell."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reverse_perturbation.config import Params
from reverse_perturbation.models.logreg import LogisticRegression, tune
from reverse_perturbation.retrieval.outputs import Outputs
from reverse_perturbation.stages.arguments import parser, run
from reverse_perturbation.stages.screen import SCREEN, screen_of
from reverse_perturbation.storage import write_text


def logreg(args: argparse.Namespace, params: Params) -> None:
    """Write the two fits' models and outputs."""
    screen = screen_of(args, params)
    expression = screen.log1p()
    reference, validation = screen.rows("reference"), screen.rows("validation")
    choice = LogisticRegression(scaling="none", c=1.0, max_iter=params.logreg.max_iter)
    if args.kind == "tuned":
        choice, table = tune(
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
        print(f"logreg: chosen on {len(validation):,} validation cells: scaling {choice.scaling}, C {choice.c:g}")
    for fit, rows in (("selection", reference), ("final", np.concatenate([reference, validation]))):
        model = choice.fresh().fit(expression[rows], screen.conditions[rows])
        model.save(Path(args.model) / fit, list(screen.genes))
        Outputs(
            cells=screen.cells,
            log_proba=model.log_proba(expression),
            conditions=model.conditions,
            embedding=None,
        ).save(Path(args.outputs) / f"{fit}.npz")
        print(f"logreg {args.kind}: {fit} fit on {len(rows):,} cells, {model.n_iter} iterations")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = parser(__doc__, *SCREEN)
    arguments.add_argument("--kind", required=True, choices=["prior", "tuned"], help="which configuration")
    arguments.add_argument("--model", required=True, help="folder for the fitted models")
    arguments.add_argument("--outputs", required=True, help="folder for the class probabilities")
    run(logreg, arguments, argv)


if __name__ == "__main__":
    main()
