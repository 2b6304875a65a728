"""Fine-tune a foundation model beside the tuned logistic regression, with one seed.

Each fit starts from the logistic regression that was fitted on the same cells: the selection fit's has not seen the
validation cells.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from reverse_perturbation.config import Params
from reverse_perturbation.data.screen.masked_screen import MaskedScreen, load_masked_screen
from reverse_perturbation.models.device import make_accelerator
from reverse_perturbation.models.encoder import load_checkpoint
from reverse_perturbation.models.finetune.network.classifier import save_classifier
from reverse_perturbation.models.finetune.training.fit_twice import fit_twice
from reverse_perturbation.models.finetune.training.resume import resume_folder
from reverse_perturbation.models.fusion import FusionClassifier, LinearPart, TokensAndFeatures
from reverse_perturbation.models.linear.features import features
from reverse_perturbation.sections import FITS, Fit
from reverse_perturbation.stages.arguments import SCREEN, add_training, parser, run, training_settings


def fuse(args: argparse.Namespace, params: Params) -> None:
    """Write the trained weights of both fits, and the training curves."""
    config = params.finetune
    screen = load_masked_screen(args.cells, args.split, args.genes, mask=params.mask, genes=params.data.genes)
    conditions, genes = screen.classes(), list(screen.genes)
    starts = {fit: LinearPart.load(Path(args.logreg) / fit, genes, conditions, args.cells) for fit in FITS}
    checkpoint = load_checkpoint(params, args.checkpoint)
    token_ids, tokenize = checkpoint.token_ids(screen), checkpoint.tokenizer(screen, params)

    kind = starts["final"].kind  # one choice for both fits

    def join(cells: MaskedScreen) -> TokensAndFeatures:
        return TokensAndFeatures.join(tokenize(cells), features(cells, kind))

    def make_model(fit: Fit) -> FusionClassifier:
        return FusionClassifier(checkpoint.backbone, token_ids, starts[fit], config, params.fusion)

    files = {name: getattr(args, name) for name in ("cells", "split", "genes", "checkpoint", "logreg")}
    with resume_folder(args.resume, files, training_settings(params) | {"seed": args.seed}) as states:
        accelerator = make_accelerator(params.precision)
        fits = fit_twice(
            make_model,
            screen,
            join,
            config,
            accelerator,
            stage="fuse",
            seed=args.seed,
            checkpoint_sha256=checkpoint.sha256,
            cache=Path(args.cache),
            states=states,
            curves=Path(args.curves),
            include_untrained=True,
        )
        if accelerator.is_main_process:
            about = {"fusion": params.fusion.model_dump(), "features": kind, "genes": genes}
            save_classifier(args.model, fits, conditions, checkpoint, config, **about)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = parser(__doc__, *SCREEN)
    add_training(arguments)
    arguments.add_argument("--logreg", required=True, help="folder of the fitted logistic regression's two fits")
    run(fuse, arguments, argv)


if __name__ == "__main__":
    main()
