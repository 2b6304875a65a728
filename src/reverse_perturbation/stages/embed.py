"""Compute embeddings and class probabilities for every cell, by both fits of a fine-tuned model."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from reverse_perturbation.config import Params
from reverse_perturbation.data.screen.masked_screen import fingerprint, load_masked_screen, separate_controls
from reverse_perturbation.models.device import make_accelerator
from reverse_perturbation.models.embed import embed_cells
from reverse_perturbation.models.encoder import load_checkpoint
from reverse_perturbation.models.finetune.inference.cache import cached
from reverse_perturbation.models.finetune.network.classifier import load_classifier
from reverse_perturbation.sections import FITS
from reverse_perturbation.stages.arguments import SCREEN, parser, run
from reverse_perturbation.storage import read_json, write_json


def embed(args: argparse.Namespace, params: Params) -> None:
    """Write the predictions of both fits."""
    screen, controls = separate_controls(
        load_masked_screen(args.cells, args.split, args.genes, mask=params.mask, genes=params.data.genes, controls=True)
    )
    name = f"{params.encoder}-{args.seed}"
    trained, predicted = Path(args.models) / name, Path(args.predictions) / name
    checkpoint = load_checkpoint(params, args.checkpoint)
    tokenize = checkpoint.tokenizer(screen, params)
    tokens, control_tokens = tokenize(screen), tokenize(controls)
    fits = {fit: load_classifier(trained, fit, checkpoint) for fit in FITS}
    frozen, _ = fits["final"]  # frozen layers are the same in both
    accelerator = make_accelerator(params.precision)
    if accelerator.is_main_process:
        about = read_json(trained / "config.json")
        facts = {name: about[name] for name in ("trainable_parameters", "finding")}
        write_json(predicted / "facts.json", {"training": facts})
    device = accelerator.device
    with accelerator.main_process_first():  # the others read what it has written
        source = cached(frozen, tokens, folder=args.cache, checkpoint_sha256=checkpoint.sha256, device=device)
    for fit, (model, conditions) in fits.items():
        predictions = embed_cells(model, source, screen.cell_ids, conditions, accelerator)
        control_mean = None
        if len(controls.cell_ids):
            of_controls = embed_cells(model, control_tokens, controls.cell_ids, conditions, accelerator).embedding
            control_mean = None if of_controls is None else of_controls.mean(axis=0)
        predictions = replace(predictions, screen_sha256=fingerprint(screen), control_mean=control_mean)
        if accelerator.is_main_process:
            predictions.save(predicted / f"{fit}.npz")
            print(f"embed: {params.encoder}, {fit} fit, {len(screen.cell_ids):,} cells")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = parser(__doc__, *SCREEN)
    arguments.add_argument("--checkpoint", required=True, help="foundation model of the weights, a folder")
    arguments.add_argument("--seed", required=True, type=int, help="training seed of the weights")
    arguments.add_argument("--models", required=True, help="folder of the models, with the trained weights")
    arguments.add_argument("--cache", required=True, help="folder for the output of frozen layers")
    arguments.add_argument("--predictions", required=True, help="folder for what each model predicts")
    run(embed, arguments, argv)


if __name__ == "__main__":
    main()
