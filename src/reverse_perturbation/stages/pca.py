"""Fit principal components on the reference cells and embed every cell."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from reverse_perturbation.config import Params
from reverse_perturbation.data.controls import apart
from reverse_perturbation.data.fingerprint import fingerprint
from reverse_perturbation.models.pca import Pca
from reverse_perturbation.retrieval.outputs import Outputs
from reverse_perturbation.stages.arguments import parser, run
from reverse_perturbation.stages.screen import SCREEN, screen_of


def pca(args: argparse.Namespace, params: Params) -> None:
    """Write the two fits' models and embeddings."""
    screen, controls = apart(screen_of(args, params, controls=True))
    expression = screen.log1p()
    for fit, parts in (("selection", ("reference",)), ("final", ("reference", "validation"))):
        rows = screen.rows(*parts)
        model = Pca(params.pca).fit(expression[rows])
        model.save(Path(args.model) / fit, list(screen.genes))
        control_mean = model.embed(controls.log1p()).mean(axis=0) if len(controls.cells) else None
        outputs = Outputs(screen.cells, None, None, model.embed(expression), fingerprint(screen), control_mean)
        outputs.save(Path(args.outputs) / f"{fit}.npz")
        print(f"pca: {fit} fit of {params.pca.components} components on {len(rows):,} cells")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = parser(__doc__, *SCREEN)
    arguments.add_argument("--model", required=True, help="folder for the fitted models")
    arguments.add_argument("--outputs", required=True, help="folder for the embeddings")
    run(pca, arguments, argv)


if __name__ == "__main__":
    main()
