"""Fine-tuning: the loop, its learning rates, and the choice of the epoch to keep."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.optim import AdamW

from reverse_perturbation.errors import InputError
from reverse_perturbation.metrics.ranks.per_query import exact_hit, reciprocal_rank
from reverse_perturbation.metrics.ranks.ranking import Ranking
from reverse_perturbation.models.encoder.batches import training_batches
from reverse_perturbation.models.encoder.tokens import TokenSource, on_device
from reverse_perturbation.models.finetune.inference.predict import predict_in_order
from reverse_perturbation.models.finetune.network.adapters import frozen_while
from reverse_perturbation.models.finetune.network.classifier import EncoderClassifier
from reverse_perturbation.models.finetune.training.collapse import ADVICE, chance_mrr, has_collapsed, relative_variance
from reverse_perturbation.models.finetune.training.ema import Ema
from reverse_perturbation.models.finetune.training.history import Epoch, chosen_epoch, highest_epoch
from reverse_perturbation.models.finetune.training.losses import Objective, natural_log_prior
from reverse_perturbation.models.finetune.training.resume import TrainingState
from reverse_perturbation.models.recipe.schedule import make_schedule
from reverse_perturbation.retrieval.library import LibraryRanker
from reverse_perturbation.sections import Finetune, Library

Step = tuple[Tensor, float, np.ndarray]  # mean loss of a batch, how many cells it counts for, and their rows
LIBRARY_CELLS = 50  # training cells a condition in the library of each epoch: enough for its mean, and quick to embed
VARIANCE_CELLS = 500  # training cells on which a refit watches for collapse: as many as a small validation part
MEANS = Library(
    kind="mean", embedding="plain", similarity="cosine", prototypes=1, cells_per_prototype=1, neighbours=1, seed=0
)


@dataclass(frozen=True)
class TrainingData:
    """Cells, labels and parts to train on.

    Attributes
    ----------
    cell_ids
        Of all cells of the split, object array of str.
    tokens
        Of the same cells.
    targets
        int64, one a cell: index of its condition in ``conditions``.
    conditions
        Names of the classes.
    train, validation
        Rows of the training and the validation cells; ``validation`` is empty in a refit.
    resample
        Draws the tokens of synthetic cells that replace ``train`` in an epoch, one each and of the same condition;
        None: the cells themselves.
    """

    cell_ids: np.ndarray
    tokens: TokenSource
    targets: np.ndarray
    conditions: list[str]
    train: np.ndarray
    validation: np.ndarray
    resample: Callable[[np.random.Generator], TokenSource] | None = None


def fit(
    model: EncoderClassifier,
    data: TrainingData,
    config: Finetune,
    *,
    seed: int,
    epochs: int,
    accelerator: Accelerator,
    state_path: Path | None = None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> list[Epoch]:
    """Train in place and leave the weights of the chosen epoch in the model.

    With a validation part, training stops ``schedule.patience`` epochs after the highest one, and the weights of the
    chosen one (see ``history``) are put back; without, it runs ``epochs`` epochs. The learning rates follow one curve
    over ``schedule.epochs`` in both cases, so that a refit of n epochs repeats the first n. With ``optimizer.ema`` the
    moving average of the weights is validated and left in the model. A collapsed epoch (see ``collapse``) is the last;
    the chosen one is then among those before it, if there are any.

    Several processes each take their share of every batch and all take the same steps, as many as one process would;
    a contrastive loss sees the pairs within a share. Each validates on its own.

    Parameters
    ----------
    model
        Its trainable weights are trained.
    data
        Cells and labels.
    config
        Section ``finetune``.
    seed
        Of the order of cells and of dropout.
    epochs
        Maximum number of epochs.
    accelerator
        Where to compute, with how many processes and in which precision; validation is in float32.
    state_path
        File for the training state after each epoch, from which an interrupted run resumes. It must belong to the same
        data, settings and start.
    on_epoch
        Called after each epoch, those of an interrupted run included.

    Returns
    -------
    list of Epoch
        One entry an epoch.

    Raises
    ------
    InputError
        If the loss is not finite; the cells of the batch are named, and ``state_path`` holds the last completed epoch.
    """
    device = accelerator.device
    torch.manual_seed(seed)
    model.to(device)
    data = replace(data, tokens=on_device(data.tokens, device))
    log_prior = None
    if config.sampler.kind == "balanced" and config.sampler.prior_correction:
        log_prior = natural_log_prior(data.targets[data.train], len(data.conditions)).to(device)
        model.start_from_prior(log_prior)
    objective = Objective(config.loss, data.conditions, log_prior)
    state = _start(model, data, config, seed)
    start_variance = relative_variance(predict_in_order(model, data.tokens, _watched(data), device)[0])
    if state_path is not None and state.load(state_path):
        print(f"{state_path.stem}: resumed after epoch {state.history[-1].epoch}", flush=True)
        for epoch in state.history:
            on_epoch(epoch)
    first = state.history[-1].epoch + 1 if state.history else 1
    for number in range(first, epochs + 1):
        if state.history and (
            state.history[-1].collapsed or number - 1 - highest_epoch(state.history).epoch >= config.schedule.patience
        ):
            break
        start = time.perf_counter()
        with frozen_while(model.backbone, number <= config.schedule.probe_epochs):
            loss = _train_epoch(state, data, config, objective, accelerator)
        rates = {group["name"]: group["lr"] for group in state.optimizer.param_groups}
        with state.ema.in_place(model) if state.ema else nullcontext():
            figures = _validate(model, data, device)
            epoch = Epoch(
                number,
                loss,
                backbone_learning_rate=rates.get("backbone", 0.0),
                head_learning_rate=rates["head"],
                **figures,
                seconds=time.perf_counter() - start,
                collapsed=has_collapsed(figures["relative_variance"], start_variance),
            )
            state.history.append(epoch)
            if chosen_epoch(state.history) is epoch:
                state.chosen = {name: t.cpu().clone() for name, t in model.trainable_state().items()}
        on_epoch(epoch)
        if state_path is not None and accelerator.is_main_process:
            state.save(state_path)
    accelerator.wait_for_everyone()
    if state.chosen:
        model.load_trainable_state(state.chosen)
    model.eval()
    return state.history


def _start(model: EncoderClassifier, data: TrainingData, config: Finetune, seed: int) -> TrainingState:
    optimizer, schedule = make_optimizer(model), config.schedule
    steps = math.ceil(math.ceil(len(data.train) / config.sampler.batch_size) / config.optimizer.accumulation)
    rates = make_schedule(optimizer, steps * schedule.epochs, schedule.warmup_fraction, steps * schedule.probe_epochs)
    ema = Ema(model, config.optimizer.ema) if config.optimizer.ema else None
    return TrainingState(model, optimizer, rates, ema, np.random.default_rng(seed))


def make_optimizer(model: EncoderClassifier) -> AdamW:
    """Build AdamW with the backbone's weights (if any are trained) and the head's in groups of their own."""
    on_gpu = next(model.parameters()).is_cuda
    return AdamW(model.parameter_groups(), weight_decay=model.config.optimizer.weight_decay, fused=on_gpu or None)


def _train_epoch(
    state: TrainingState, data: TrainingData, config: Finetune, objective: Objective, accelerator: Accelerator
) -> float:
    state.model.train()
    total, seen = 0.0, 0
    waiting: list[Step] = []
    tokens, rows, targets, cell_ids = data.tokens, data.train, data.targets, data.cell_ids
    if data.resample is not None:
        tokens, rows = on_device(data.resample(state.rng), accelerator.device), np.arange(len(data.train))
        targets, cell_ids = targets[data.train], cell_ids[data.train]
    batches = training_batches(rows, targets, tokens.lengths, config.sampler, state.rng)
    for start in range(0, len(batches), config.optimizer.accumulation):
        group = batches[start : start + config.optimizer.accumulation]
        size = sum(map(len, group))
        steps: list[Step] = []
        state.optimizer.zero_grad(set_to_none=True)
        for batch in group:
            share, weight = _share(batch, accelerator)
            with accelerator.autocast():
                output = state.model(tokens.batch(share).to(accelerator.device))
                loss = objective(output, torch.from_numpy(targets[share]).to(accelerator.device))
            accelerator.backward(loss * (weight / size))
            steps.append((loss.detach(), weight, share))
        if accelerator.num_processes > 1:
            _add_gradients(state.model, accelerator)
        nn.utils.clip_grad_norm_(state.model.parameters(), config.optimizer.clip_norm)
        state.optimizer.step()
        state.schedule.step()
        if state.ema:
            state.ema.update(state.model)
        seen += size
        # Those of the step before: reading the loss of this one would let a GPU wait for the next.
        total += _loss(waiting, cell_ids)
        waiting = steps
    total += _loss(waiting, cell_ids)
    return float(accelerator.reduce(torch.tensor(total, dtype=torch.float64, device=accelerator.device), "sum")) / seen


def _loss(steps: Sequence[Step], cell_ids: np.ndarray) -> float:
    """Return the sum over cells; an error if it is not finite."""
    total = 0.0
    for loss, weight, rows in steps:
        if not math.isfinite(value := loss.item()):
            raise InputError(f"loss is {value} in the batch of cells {', '.join(cell_ids[rows])}; {ADVICE}")
        total += value * weight
    return total


def _share(batch: np.ndarray, accelerator: Accelerator) -> tuple[np.ndarray, float]:
    """Return this process's rows of a batch, and how many rows they count for; the counts add up to the batch's."""
    processes = accelerator.num_processes
    if len(batch) < processes:  # too few for all: each takes all of them, so that each has gradients
        return batch, len(batch) / processes
    share = batch[accelerator.process_index :: processes]
    return share, len(share)


def _add_gradients(model: nn.Module, accelerator: Accelerator) -> None:
    """Give every process the sum of all processes' gradients.

    Not by DistributedDataParallel: it takes a mean, whatever the sizes of the shares, and settles at its start which
    weights are trained, which probe epochs change.
    """
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    vector_to_parameters(accelerator.reduce(parameters_to_vector(gradients), "sum"), gradients)


def _validate(model: EncoderClassifier, data: TrainingData, device: torch.device) -> dict[str, float]:
    """Return the validation figures of an :class:`Epoch`, by name; in a refit ``relative_variance`` alone."""
    if not len(data.validation):
        return {"relative_variance": relative_variance(predict_in_order(model, data.tokens, _watched(data), device)[0])}
    names = np.array(data.conditions, dtype=object)
    truth = data.targets[data.validation]
    embedding, logits = predict_in_order(model, data.tokens, data.validation, device)
    by_library = _by_library(model, data, embedding, device)
    scores = by_library if logits is None else logits
    headline, library = (Ranking.of(each, names[truth], names) for each in (scores, by_library))
    hit = float(exact_hit(headline, 1).mean())
    loss = math.nan
    if logits is not None:
        loss = cross_entropy(torch.from_numpy(logits), torch.from_numpy(truth)).item()
    return {
        "validation_loss": loss,
        "exact_hit_at_1": hit,
        "exact_hit_at_1_error": math.sqrt(hit * (1 - hit) / len(truth)),
        "mrr": float(reciprocal_rank(headline).mean()),
        "library_exact_hit_at_1": float(exact_hit(library, 1).mean()),
        "library_mrr": float(reciprocal_rank(library).mean()),
        "chance_mrr": chance_mrr(scores, truth),
        "relative_variance": relative_variance(embedding),
    }


def _watched(data: TrainingData) -> np.ndarray:
    """Return the rows by whose embeddings a collapse is told: the validation cells, or some training cells."""
    return data.validation if len(data.validation) else data.train[:: math.ceil(len(data.train) / VARIANCE_CELLS)]


def _by_library(
    model: EncoderClassifier, data: TrainingData, embedding: np.ndarray, device: torch.device
) -> np.ndarray:
    """Return the similarity of embeddings to each condition's mean over some training cells, [n, n_conditions]."""
    targets = data.targets[data.train]
    order = np.argsort(targets, kind="stable")
    place = np.arange(len(order)) - np.searchsorted(targets[order], targets[order])  # within the condition
    rows = data.train[order[place < LIBRARY_CELLS]]
    library = LibraryRanker(MEANS)
    library.fit(predict_in_order(model, data.tokens, rows, device)[0], data.targets[rows])
    similarity = np.full((len(embedding), len(data.conditions)), -1.0, dtype=np.float32)
    similarity[:, library.conditions.astype(int)] = library.scores(embedding)
    return similarity
