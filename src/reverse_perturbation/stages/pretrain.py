"""Provide the checkpoint that fine-tuning starts from: the user's own, or a small model trained in domain."""

import argparse
from collections.abc import Sequence

from reverse_perturbation.config import Params
from reverse_perturbation.data.screen.masked_screen import MaskedScreen, load_masked_screen
from reverse_perturbation.models.encoder import provide_checkpoint
from reverse_perturbation.stages.arguments import SCREEN, parser, run


def pretrain(args: argparse.Namespace, params: Params) -> None:
    """Write the folder of a checkpoint."""

    def load() -> MaskedScreen:
        genes = params.data.genes
        return load_masked_screen(args.cells, args.split, args.genes, mask=params.mask, genes=genes, controls=True)

    provide_checkpoint(params, load, args.output)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = parser(__doc__, *SCREEN)
    arguments.add_argument("--output", required=True, help="folder for the checkpoint")
    run(pretrain, arguments, argv)


if __name__ == "__main__":
    main()
