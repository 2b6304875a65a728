"""Provide the scGPT checkpoint: the user's own, or a small model trained here by masked-value prediction."""

import argparse
from collections.abc import Sequence

import torch

from reverse_perturbation.config import Params
from reverse_perturbation.data.screen import CONTROL_PART
from reverse_perturbation.models.scgpt.backbone import build_backbone
from reverse_perturbation.models.scgpt.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from reverse_perturbation.models.scgpt.inputs import tokens_of
from reverse_perturbation.models.scgpt.pretrain import pretrain as train
from reverse_perturbation.models.scgpt.pretrain import small_architecture, small_vocabulary
from reverse_perturbation.stages.arguments import parser, run
from reverse_perturbation.stages.device import device
from reverse_perturbation.stages.screen import SCREEN, screen_of


def pretrain(args: argparse.Namespace, params: Params) -> None:
    """Write a folder in the official layout."""
    if params.scgpt.checkpoint is not None:
        given = load_checkpoint(params.scgpt.checkpoint)
        print(f"pretrain: nothing to train, {params.scgpt.checkpoint} is given: {given.report}")
        save_checkpoint(args.output, given.model, given.vocabulary, given.architecture)
        return
    screen = screen_of(args, params, controls=True)
    architecture = small_architecture(params.pretrain, params.scgpt.value_input)
    vocabulary = small_vocabulary(screen.tokens)
    torch.manual_seed(params.pretrain.seed)
    model = build_backbone(architecture, vocabulary)
    start = Checkpoint(model, vocabulary, architecture, None)
    rows = screen.rows("reference", CONTROL_PART)
    tokens = tokens_of(screen, start, params.scgpt).take(rows)
    print(
        f"pretrain: {sum(p.numel() for p in model.parameters()):,} parameters, {len(rows):,} reference and control "
        f"cells, {tokens.lengths.mean():.0f} tokens a cell",
        flush=True,
    )
    train(
        model,
        tokens,
        architecture,
        params.pretrain,
        device=device(),
        on_epoch=lambda epoch, loss: print(
            f"pretrain: epoch {epoch}/{params.pretrain.epochs}, mean squared error {loss:.3f}", flush=True
        ),
    )
    save_checkpoint(args.output, model.cpu(), vocabulary, architecture)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = parser(__doc__, *SCREEN)
    arguments.add_argument("--output", required=True, help="folder for the checkpoint")
    run(pretrain, arguments, argv)


if __name__ == "__main__":
    main()
