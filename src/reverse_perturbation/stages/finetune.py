"""Fine-tune scGPT with one seed: choose the epoch on validation, then fit again on reference + validation."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import torch
from dvclive import Live

from reverse_perturbation.config import Params
from reverse_perturbation.models.scgpt.checkpoint import load_checkpoint
from reverse_perturbation.models.scgpt.classifier import ScgptClassifier, save_classifier
from reverse_perturbation.models.scgpt.inputs import token_ids_of, tokens_of
from reverse_perturbation.models.scgpt.train import Epoch, Task, best_epoch, fit
from reverse_perturbation.stages.arguments import parser, run
from reverse_perturbation.stages.device import device
from reverse_perturbation.stages.screen import SCREEN, screen_of


def finetune(args: argparse.Namespace, params: Params) -> None:
    """Write the trained weights of both fits, and the training curves."""
    config = params.finetune
    screen = screen_of(args, params)
    checkpoint = load_checkpoint(args.checkpoint)
    tokens = tokens_of(screen, checkpoint, params.scgpt)
    token_ids = token_ids_of(screen, checkpoint.vocabulary)
    reference, validation = screen.rows("reference"), screen.rows("validation")
    conditions, targets = np.unique(screen.conditions.astype(str), return_inverse=True)

    def fresh() -> ScgptClassifier:
        torch.manual_seed(args.seed)
        ids = torch.from_numpy(np.unique(token_ids[token_ids >= 0]))
        return ScgptClassifier(load_checkpoint(args.checkpoint).model, ids, len(conditions), config)

    model = fresh()
    fits = {"selection": model, "final": model}
    if model.head is not None:
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        print(f"finetune: {config.adaptation}, {trained:,} trainable parameters, seed {args.seed}", flush=True)
        task = Task(tokens, targets, list(conditions), reference, validation)
        with Live(dir=args.curves, dvcyaml=None, save_dvc_exp=False, report=None) as live:
            history = fit(
                model,
                task,
                config,
                seed=args.seed,
                epochs=config.epochs,
                device=device(),
                on_epoch=lambda epoch: _report(epoch, config.epochs, live),
            )
        best = best_epoch(history)
        print(f"finetune: epoch {best.epoch} is the best on validation: exact_hit@1 {best.exact_hit_at_1:.3f}")
        if config.refit:
            print(f"finetune: fitting {best.epoch} epochs on reference + validation", flush=True)
            everything = Task(
                tokens, targets, list(conditions), np.concatenate([reference, validation]), validation[:0]
            )
            fits["final"] = fresh()
            fit(fits["final"], everything, config, seed=args.seed, epochs=best.epoch, device=device())
    save_classifier(args.model, fits, list(conditions), args.checkpoint, config)


def _report(epoch: Epoch, epochs: int, live: Live) -> None:
    for name, value in asdict(epoch).items():
        if name not in ("epoch", "seconds"):
            live.log_metric(name, value)
    live.next_step()
    print(
        f"finetune: epoch {epoch.epoch}/{epochs}, {epoch.seconds:.1f} s, loss {epoch.train_loss:.3f} train "
        f"{epoch.validation_loss:.3f} validation, exact_hit@1 {epoch.exact_hit_at_1:.3f}, mrr {epoch.mrr:.3f}",
        flush=True,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = parser(__doc__, *SCREEN)
    arguments.add_argument("--checkpoint", required=True, help="scGPT folder to start from")
    arguments.add_argument("--seed", required=True, type=int, help="training seed")
    arguments.add_argument("--model", required=True, help="folder for the trained weights")
    arguments.add_argument("--curves", required=True, help="folder for the training curves")
    run(finetune, arguments, argv)


if __name__ == "__main__":
    main()
