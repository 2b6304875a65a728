"""Fine-tune scGPT beside the tuned logistic regression with one seed, as the stage finetune does alone.

Each fit starts from the logistic regression that was fitted on the same cells: the selection fit's has not seen the
validation cells.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from reverse_perturbation.config import Params
from reverse_perturbation.data.screen import Screen
from reverse_perturbation.models.scgpt.checkpoint import load_checkpoint
from reverse_perturbation.models.scgpt.classifier import save_classifier
from reverse_perturbation.models.scgpt.fusion import FusionClassifier, LinearPart, TokensAndExpression
from reverse_perturbation.models.scgpt.inputs import readable_tokens, tokenizer_of
from reverse_perturbation.stages.arguments import parser, run
from reverse_perturbation.stages.device import make_accelerator
from reverse_perturbation.stages.finetune import Fit, fit_twice, resumable, training_arguments
from reverse_perturbation.stages.screen import SCREEN, screen_of


def fuse(args: argparse.Namespace, params: Params) -> None:
    """Write the trained weights of both fits, and the training curves."""
    config = params.finetune
    screen = screen_of(args, params)
    conditions, genes = screen.classes(), list(screen.genes)
    fits: tuple[Fit, Fit] = ("selection", "final")
    starts = {fit: LinearPart.load(Path(args.logreg) / fit, genes, conditions, args.cells) for fit in fits}
    checkpoint = load_checkpoint(args.checkpoint)
    tokenize = tokenizer_of(screen, checkpoint, params.scgpt)
    token_ids = readable_tokens(screen, checkpoint.vocabulary)

    def join(cells: Screen) -> TokensAndExpression:
        return TokensAndExpression.join(tokenize(cells), cells.log1p())

    def fresh(fit: Fit) -> FusionClassifier:
        return FusionClassifier(checkpoint.model, token_ids, starts[fit], config, params.fusion)

    about = {"fusion": params.fusion.model_dump(), "genes": genes}
    with resumable(args, params, "logreg") as states:
        accelerator = make_accelerator(params.precision)
        trained = fit_twice(
            "fuse",
            fresh,
            screen,
            join,
            checkpoint,
            config,
            accelerator,
            args=args,
            states=states,
            include_untrained=True,
        )
        if accelerator.is_main_process:
            save_classifier(args.model, trained, conditions, checkpoint, config, **about)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = parser(__doc__, *SCREEN)
    training_arguments(arguments)
    arguments.add_argument("--logreg", required=True, help="folder of the fitted logistic regression's two fits")
    run(fuse, arguments, argv)


if __name__ == "__main__":
    main()
