"""Fine-tune scGPT with one seed: choose the epoch on validation, then fit again on reference + validation."""

import argparse
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from accelerate import Accelerator
from dvclive import Live

from reverse_perturbation.config import Finetune, Params
from reverse_perturbation.data.screen import Screen
from reverse_perturbation.models.scgpt.augment import drawn_anew
from reverse_perturbation.models.scgpt.cache import cached
from reverse_perturbation.models.scgpt.checkpoint import Checkpoint, load_checkpoint
from reverse_perturbation.models.scgpt.classifier import ScgptClassifier, save_classifier
from reverse_perturbation.models.scgpt.history import Epoch, chosen_epoch
from reverse_perturbation.models.scgpt.inputs import readable_tokens, tokenizer_of
from reverse_perturbation.models.scgpt.resume import kept_until_done
from reverse_perturbation.models.scgpt.tokens import Tokens
from reverse_perturbation.models.scgpt.train import Task, fit
from reverse_perturbation.stages.arguments import parser, run
from reverse_perturbation.stages.device import make_accelerator
from reverse_perturbation.stages.screen import SCREEN, screen_of

Fit = Literal["selection", "final"]


def finetune(args: argparse.Namespace, params: Params) -> None:
    """Write the trained weights of both fits, and the training curves."""
    config = params.finetune
    screen = screen_of(args, params)
    checkpoint = load_checkpoint(args.checkpoint)
    tokenize = tokenizer_of(screen, checkpoint, params.scgpt)
    token_ids = readable_tokens(screen, checkpoint.vocabulary)
    conditions = screen.classes()

    def fresh(_: Fit) -> ScgptClassifier:
        return ScgptClassifier(checkpoint.model, token_ids, len(conditions), config)

    with resumable(args, params) as states:
        accelerator = make_accelerator(params.precision)
        fits = fit_twice("finetune", fresh, screen, tokenize, checkpoint, config, accelerator, args=args, states=states)
        if accelerator.is_main_process:
            save_classifier(args.model, fits, conditions, checkpoint, config)


def resumable(args: argparse.Namespace, params: Params, *more: str) -> AbstractContextManager[Path]:
    """Yield the folder for the states of this run's fits; delete it when the trained weights have been written.

    ``more`` names arguments of a stage, beside those all have, that are files it reads.
    """
    read = ("cells", "split", "genes", "checkpoint", *more)
    settings = params.model_dump(
        include={"data": {"genes"}, "mask": True, "precision": True, "scgpt": True, "finetune": True, "fusion": True}
    )
    return kept_until_done(args.resume, {name: getattr(args, name) for name in read}, settings | {"seed": args.seed})


def fit_twice(
    stage: str,
    fresh: Callable[[Fit], ScgptClassifier],
    screen: Screen,
    tokenize: Callable[[Screen], Tokens],
    checkpoint: Checkpoint,
    config: Finetune,
    accelerator: Accelerator,
    *,
    args: argparse.Namespace,
    states: Path,
    include_untrained: bool = False,
) -> dict[str, ScgptClassifier]:
    """Fit on the reference cells, choosing the epoch on validation, then on both for as many epochs.

    Parameters
    ----------
    stage
        Its name, for the progress that is printed.
    fresh
        Makes the model a fit starts from.
    screen
        All cells of the split.
    tokenize
        Turns it, or cells made from it, into what the model is given.
    checkpoint
        That the models start from.
    config
        Section ``finetune``.
    accelerator
        What trains. Of several processes the first one alone writes and reports.
    args
        ``seed``, of the weights that no checkpoint holds and of the order of cells; ``curves``, folder for the training
        curves of the first fit; ``cache``, folder for frozen work.
    states
        Folder in which each fit's state is kept while it is trained.
    include_untrained
        Whether the model as it starts may be the best one.

    Returns
    -------
    dict
        ``selection`` and ``final``; without ``config.refit`` they are the same.
    """

    def seeded(name: Fit) -> ScgptClassifier:
        torch.manual_seed(args.seed)
        return fresh(name)

    reference, validation = screen.rows("reference"), screen.rows("validation")
    conditions, targets = np.unique(screen.conditions.astype(str), return_inverse=True)
    selection = seeded("selection")
    trained = ", ".join(f"{count:,} in the {part}" for part, count in selection.trainable_parameters().items())
    accelerator.print(f"{stage}: {config.adaptation}, seed {args.seed}; trainable parameters: {trained}", flush=True)
    for part in set(config.readout) - set(selection.readout.parts):
        accelerator.print(f"{stage}: the readout {part} has weights to train and is left out", flush=True)
    if selection.head is None:
        Path(args.curves).mkdir(parents=True, exist_ok=True)  # an out of the stage, though there is nothing to draw
        return {"selection": selection, "final": seeded("final") if config.refit else selection}
    plain = tokenize(screen)
    with accelerator.main_process_first():  # the others find what it has written
        tokens = cached(
            selection, plain, folder=args.cache, checkpoint_sha256=checkpoint.sha256, device=accelerator.device
        )

    def task(train: np.ndarray, validation: np.ndarray) -> Task:
        draw = drawn_anew(screen, train, tokenize, config)
        return Task(screen.cells, tokens, targets, list(conditions), train, validation, draw)

    reporting = accelerator.is_main_process
    with Live(args.curves, dvcyaml=None, save_dvc_exp=False, report=None) if reporting else nullcontext() as live:
        history = fit(
            selection,
            task(reference, validation),
            config,
            seed=args.seed,
            epochs=config.epochs,
            accelerator=accelerator,
            include_untrained=include_untrained,
            state=states / f"{stage}-selection.pt",
            on_epoch=lambda epoch: _report(stage, epoch, config.epochs, live) if live else None,
        )
    chosen = chosen_epoch(history)
    accelerator.print(
        f"{stage}: epoch {chosen.epoch} is kept, validation exact_hit@1 {chosen.exact_hit_at_1:.3f}: the last within a "
        "standard error of the highest"
    )
    if not config.refit:
        return {"selection": selection, "final": selection}
    accelerator.print(f"{stage}: fitting {chosen.epoch} epochs on reference + validation", flush=True)
    everything = task(np.concatenate([reference, validation]), validation[:0])
    final = seeded("final")
    state = states / f"{stage}-final.pt"
    fit(final, everything, config, seed=args.seed, epochs=chosen.epoch, accelerator=accelerator, state=state)
    return {"selection": selection, "final": final}


def _report(stage: str, epoch: Epoch, epochs: int, live: Live) -> None:
    live.step = epoch.epoch
    for name, value in asdict(epoch).items():
        if name not in ("epoch", "seconds") and not math.isnan(value):
            live.log_metric(name, value)
    live.next_step()
    print(
        f"{stage}: epoch {epoch.epoch}/{epochs}, {epoch.seconds:.1f} s, loss {epoch.train_loss:.3f} train "
        f"{epoch.validation_loss:.3f} validation, exact_hit@1 {epoch.exact_hit_at_1:.3f}, mrr {epoch.mrr:.3f}; "
        f"by library {epoch.library_exact_hit_at_1:.3f}, {epoch.library_mrr:.3f}",
        flush=True,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = parser(__doc__, *SCREEN)
    training_arguments(arguments)
    run(finetune, arguments, argv)


def training_arguments(arguments: argparse.ArgumentParser) -> None:
    """Add what a stage that trains scGPT is told."""
    arguments.add_argument("--checkpoint", required=True, help="scGPT folder to start from")
    arguments.add_argument("--seed", required=True, type=int, help="training seed")
    arguments.add_argument("--model", required=True, help="folder for the trained weights")
    arguments.add_argument("--cache", required=True, help="folder for frozen work that is kept")
    arguments.add_argument("--resume", required=True, help="folder for the state of training that is interrupted")
    arguments.add_argument("--curves", required=True, help="folder for the training curves")


if __name__ == "__main__":
    main()
