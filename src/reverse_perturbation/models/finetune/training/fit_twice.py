"""Two fits of one model: the selection fit chooses the epoch on validation, the final fit repeats it on more cells."""

import math
import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from dvclive import Live

from reverse_perturbation.data.screen.masked_screen import MaskedScreen
from reverse_perturbation.models.encoder.interface import Tokenizer
from reverse_perturbation.models.finetune.inference.cache import cached
from reverse_perturbation.models.finetune.network.classifier import EncoderClassifier
from reverse_perturbation.models.finetune.training.augmentation import resampler
from reverse_perturbation.models.finetune.training.collapse import check_training
from reverse_perturbation.models.finetune.training.history import Epoch, chosen_epoch
from reverse_perturbation.models.finetune.training.train import TrainingData, fit
from reverse_perturbation.sections import Finetune
from reverse_perturbation.storage import write_atomically


def fit_twice(
    make_model: Callable[[], EncoderClassifier],
    screen: MaskedScreen,
    tokenize: Tokenizer,
    config: Finetune,
    accelerator: Accelerator,
    *,
    stage: str,
    seed: int,
    checkpoint_sha256: str,
    cache: Path,
    states: Path,
    curves: Path,
) -> tuple[dict[str, EncoderClassifier], str | None]:
    """Fit on the reference cells, choosing the epoch on validation, then on both for as many epochs.

    Parameters
    ----------
    make_model
        Makes the model that a fit starts from.
    screen
        All cells of the split.
    tokenize
        Turns the screen, or one of synthetic cells, into tokens.
    config
        Section ``finetune``.
    accelerator
        Where to compute. Of several processes only the first writes and reports.
    stage
        Name of the stage in the printed progress and in the names of state files.
    seed
        Of the weights that no checkpoint holds and of the order of cells.
    checkpoint_sha256
        Hash of the checkpoint the models start from.
    cache
        Folder for the output of frozen layers.
    states
        Folder for the training state of each fit.
    curves
        Folder for the training curves of the selection fit, written when it has ended.

    Returns
    -------
    fits
        ``selection`` and ``final``; without ``config.refit`` they are the same.
    finding
        What is wrong with training and what to try, see ``collapse``; None if nothing is.
    """

    def seeded() -> EncoderClassifier:
        torch.manual_seed(seed)
        return make_model()

    reference, validation = screen.rows("reference"), screen.rows("validation")
    conditions, targets = np.unique(screen.conditions.astype(str), return_inverse=True)
    selection = seeded()
    trained = ", ".join(f"{count:,} in the {part}" for part, count in selection.trainable_parameters().items())
    accelerator.print(f"{stage}: {config.adaptation.mode}, seed {seed}; trainable parameters: {trained}", flush=True)
    for part in set(config.head.readout) - set(selection.readout.parts):
        accelerator.print(f"{stage}: the readout {part} has weights to train and is left out", flush=True)
    if selection.head is None:
        curves.mkdir(parents=True, exist_ok=True)  # an out of the stage, though there is nothing to plot
        return {"selection": selection, "final": seeded() if config.refit else selection}, None
    plain = tokenize(screen)
    with accelerator.main_process_first():  # the others read what it has written
        tokens = cached(selection, plain, folder=cache, checkpoint_sha256=checkpoint_sha256, device=accelerator.device)

    def training_data(train: np.ndarray, validation: np.ndarray) -> TrainingData:
        resample = resampler(screen, train, tokenize, config.augmentation)
        return TrainingData(screen.cell_ids, tokens, targets, list(conditions), train, validation, resample)

    reporting = accelerator.is_main_process
    # Beside the states, as the report reads the whole folder of curves: a killed run leaves nothing there.
    drawn = states / "curves"
    with Live(str(drawn), dvcyaml=None, save_dvc_exp=False, report=None) if reporting else nullcontext() as live:
        history = fit(
            selection,
            training_data(reference, validation),
            config,
            seed=seed,
            epochs=config.schedule.epochs,
            accelerator=accelerator,
            state_path=states / f"{stage}-selection.pt",
            on_epoch=lambda epoch: _report(stage, epoch, config.schedule.epochs, live) if live else None,
        )
    if reporting:
        with write_atomically(curves) as temporary:
            shutil.move(drawn, temporary)
    chosen = chosen_epoch(history)
    accelerator.print(
        f"{stage}: epoch {chosen.epoch} is kept, validation exact_hit@1 {chosen.exact_hit_at_1:.3f}: the last within a "
        "standard error of the highest"
    )
    findings = [check_training(history, "selection")]
    if not config.refit:
        return {"selection": selection, "final": selection}, _tell(stage, findings, accelerator)
    accelerator.print(f"{stage}: fitting {chosen.epoch} epochs on reference + validation", flush=True)
    final = seeded()
    history = fit(
        final,
        training_data(np.concatenate([reference, validation]), validation[:0]),
        config,
        seed=seed,
        epochs=chosen.epoch,
        accelerator=accelerator,
        state_path=states / f"{stage}-final.pt",
    )
    findings.append(check_training(history, "final"))
    return {"selection": selection, "final": final}, _tell(stage, findings, accelerator)


def _tell(stage: str, findings: Sequence[str | None], accelerator: Accelerator) -> str | None:
    told = ". ".join(filter(None, findings))
    if told:
        accelerator.print(f"{stage}: {told}", flush=True)
    return told or None


def _report(stage: str, epoch: Epoch, epochs: int, live: Live) -> None:
    live.step = epoch.epoch
    for name, value in asdict(epoch).items():
        if name not in ("epoch", "seconds", "collapsed") and not math.isnan(value):
            live.log_metric(name, value)
    live.next_step()
    losses = {"train": epoch.train_loss, "validation": epoch.validation_loss}
    known = " ".join(f"{loss:.3f} {part}" for part, loss in losses.items() if not math.isnan(loss))
    print(
        f"{stage}: epoch {epoch.epoch}/{epochs}, {epoch.seconds:.1f} s, loss {known}, "
        f"exact_hit@1 {epoch.exact_hit_at_1:.3f}, mrr {epoch.mrr:.3f}; "
        f"by library {epoch.library_exact_hit_at_1:.3f}, {epoch.library_mrr:.3f}",
        flush=True,
    )
