"""Ask a fine-tuned scGPT, alone or in fusion, about every cell: embeddings and class probabilities of both fits."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from reverse_perturbation.config import Params
from reverse_perturbation.data.controls import apart
from reverse_perturbation.data.fingerprint import fingerprint
from reverse_perturbation.models.scgpt.cache import cached
from reverse_perturbation.models.scgpt.checkpoint import load_checkpoint
from reverse_perturbation.models.scgpt.classifier import load_classifier
from reverse_perturbation.models.scgpt.embed import embed_cells
from reverse_perturbation.models.scgpt.fusion import TokensAndExpression, load_fusion
from reverse_perturbation.models.scgpt.inputs import tokenizer_of
from reverse_perturbation.stages.arguments import parser, run
from reverse_perturbation.stages.device import make_accelerator
from reverse_perturbation.stages.screen import SCREEN, screen_of


def embed(args: argparse.Namespace, params: Params) -> None:
    """Write the outputs of both fits."""
    screen, controls = apart(screen_of(args, params, controls=True))
    checkpoint = load_checkpoint(args.checkpoint)
    tokenizer = tokenizer_of(screen, checkpoint, params.scgpt)
    tokens, control_tokens = tokenizer(screen), tokenizer(controls)
    load = load_classifier
    if args.kind == "fusion":
        tokens = TokensAndExpression.join(tokens, screen.log1p())
        control_tokens = TokensAndExpression.join(control_tokens, controls.log1p())
        load = partial(load_fusion, genes=list(screen.genes), source=args.cells)
    fits = {fit: load(args.model, fit, checkpoint) for fit in ("selection", "final")}
    frozen, _ = fits["final"]  # the same in both
    accelerator = make_accelerator(params.precision)
    where = accelerator.device
    with accelerator.main_process_first():  # the others find what it has written
        asked = cached(frozen, tokens, folder=args.cache, checkpoint_sha256=checkpoint.sha256, device=where)
    for fit, (model, conditions) in fits.items():
        outputs = embed_cells(model, asked, screen.cells, conditions, accelerator)
        control_mean = None
        if len(controls.cells):
            of_controls = embed_cells(model, control_tokens, controls.cells, conditions, accelerator).embedding
            control_mean = None if of_controls is None else of_controls.mean(axis=0)
        outputs = replace(outputs, screen_sha256=fingerprint(screen), control_mean=control_mean)
        if accelerator.is_main_process:
            outputs.save(Path(args.outputs) / f"{fit}.npz")
            print(f"embed: {args.kind}, {fit} fit, {len(screen.cells):,} cells")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = parser(__doc__, *SCREEN)
    arguments.add_argument("--kind", required=True, choices=["scgpt", "fusion"], help="which model")
    arguments.add_argument("--checkpoint", required=True, help="scGPT folder the model was trained from")
    arguments.add_argument("--model", required=True, help="folder of the trained weights")
    arguments.add_argument("--cache", required=True, help="folder for frozen work that is kept")
    arguments.add_argument("--outputs", required=True, help="folder for embeddings and class probabilities")
    run(embed, arguments, argv)


if __name__ == "__main__":
    main()
