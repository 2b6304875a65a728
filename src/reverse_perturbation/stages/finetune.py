"""Fine-tune a foundation model with one seed: choose the epoch on validation, then fit on reference + validation."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from reverse_perturbation.config import Params
from reverse_perturbation.data.screen.masked_screen import load_masked_screen
from reverse_perturbation.models.device import make_accelerator
from reverse_perturbation.models.encoder import load_checkpoint
from reverse_perturbation.models.finetune.network.classifier import EncoderClassifier, save_classifier
from reverse_perturbation.models.finetune.training.fit_twice import fit_twice
from reverse_perturbation.models.finetune.training.resume import resume_folder
from reverse_perturbation.stages.arguments import SCREEN, add_training, parser, run, training_settings


def finetune(args: argparse.Namespace, params: Params) -> None:
    """Write the trained weights of both fits, and the training curves."""
    config, name = params.finetune, f"{params.encoder}-{args.seed}"
    screen = load_masked_screen(args.cells, args.split, args.genes, mask=params.mask, genes=params.data.genes)
    checkpoint = load_checkpoint(params, args.checkpoint)
    token_ids, conditions = checkpoint.token_ids(screen), screen.classes()

    def make_model() -> EncoderClassifier:
        return EncoderClassifier(checkpoint.backbone, token_ids, len(conditions), config)

    files = {file: getattr(args, file) for file in ("cells", "split", "genes", "checkpoint")}
    accelerator = make_accelerator(params.precision)
    settings, main = training_settings(params) | {"seed": args.seed}, accelerator.is_main_process
    with resume_folder(args.resume, files, settings, is_main_process=main) as states:
        fits, finding = fit_twice(
            make_model,
            screen,
            checkpoint.tokenizer(screen, params),
            config,
            accelerator,
            stage="finetune",
            seed=args.seed,
            checkpoint_sha256=checkpoint.sha256,
            cache=Path(args.cache),
            states=states,
            curves=Path(args.curves) / name,
        )
        if main:
            save_classifier(Path(args.models) / name, fits, conditions, checkpoint, config, finding)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = parser(__doc__, *SCREEN)
    add_training(arguments)
    run(finetune, arguments, argv)


if __name__ == "__main__":
    main()
