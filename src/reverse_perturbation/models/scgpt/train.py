"""Fine-tuning: the loop, its learning rates, and the choice of the epoch to keep."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from reverse_perturbation.config import Finetune
from reverse_perturbation.models.scgpt.classifier import ScgptClassifier
from reverse_perturbation.models.scgpt.heads import CellOutput
from reverse_perturbation.models.scgpt.losses import Objective, natural_log_prior
from reverse_perturbation.models.scgpt.samplers import batches_by_length, training_batches
from reverse_perturbation.models.scgpt.tokens import Cells
from reverse_perturbation.retrieval import metrics
from reverse_perturbation.retrieval.library import LibraryRanker

EVALUATION_BATCH = 256


@dataclass(frozen=True)
class Epoch:
    """One line of the training curves.

    The training loss is the mean of what is lowered, in nats, NaN in epoch 0, before training. The validation loss is
    the mean cross-entropy, without label smoothing, NaN without a classifier. All validation figures are NaN in a
    refit, which has no validation part left.
    """

    epoch: int
    train_loss: float
    validation_loss: float
    exact_hit_at_1: float
    mrr: float
    backbone_learning_rate: float
    head_learning_rate: float
    seconds: float

    @property
    def score(self) -> tuple[float, float]:
        """By which epochs are compared: exact_hit@1, then mrr."""
        return self.exact_hit_at_1, self.mrr


@dataclass(frozen=True)
class Task:
    """The cells of a training run.

    Attributes
    ----------
    tokens
        Of all cells of the split.
    targets
        int64, one a cell: place of its condition in ``conditions``.
    conditions
        Names of the classes.
    train, validation
        Rows to learn from and to choose by; ``validation`` is empty in a refit.
    draw
        Gives the tokens of made-up cells that stand in for ``train`` in an epoch, one each and of the same condition;
        None: the cells themselves.
    """

    tokens: Cells
    targets: np.ndarray
    conditions: list[str]
    train: np.ndarray
    validation: np.ndarray
    draw: Callable[[np.random.Generator], Cells] | None = None


def fit(
    model: ScgptClassifier,
    task: Task,
    config: Finetune,
    *,
    seed: int,
    epochs: int,
    device: torch.device,
    include_untrained: bool = False,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> list[Epoch]:
    """Train in place and leave the weights of the best epoch in the model.

    With a validation part, training stops ``config.patience`` epochs after the best one, and that one's
    weights are put back; without, it runs ``epochs`` epochs. The learning rates follow one curve over
    ``config.epochs`` in both cases, so that a refit of n epochs repeats the course of the first n.

    Parameters
    ----------
    model
        Its trainable weights are trained.
    task
        Cells and labels.
    config
        Section ``finetune``.
    seed
        Of the order of cells and of dropout.
    epochs
        At most so many.
    device
        Where to compute.
    include_untrained
        Let the model as it is given take part in the choice, as epoch 0.
    on_epoch
        Called after each epoch.

    Returns
    -------
    list of Epoch
        The course of training.

    Raises
    ------
    FloatingPointError
        If the loss is not finite; the rows of the batch are named.
    """
    torch.manual_seed(seed)
    order = np.random.default_rng(seed)
    model.to(device)
    optimizer = make_optimizer(model, config)
    log_prior = None
    if model.head is not None and config.sampler == "balanced" and config.prior_correction:
        log_prior = model.head.log_prior.copy_(natural_log_prior(task.targets[task.train], len(task.conditions)))
    objective = Objective(config.loss, task.conditions, log_prior)
    steps_per_epoch = math.ceil(math.ceil(len(task.train) / config.batch_size) / config.accumulation)
    schedule = make_schedule(optimizer, steps_per_epoch * config.epochs, config.warmup_fraction)
    history: list[Epoch] = []
    best: dict[str, Tensor] = {}
    for number in range(0 if include_untrained else 1, epochs + 1):
        start = time.perf_counter()
        loss = math.nan
        if number:
            loss = _train_epoch(model, task, config, objective, optimizer, schedule, order, device)
        rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
        found = _validate(model, task, device)
        epoch = Epoch(number, loss, *found, rates.get("backbone", 0.0), rates["head"], time.perf_counter() - start)
        history.append(epoch)
        on_epoch(epoch)
        if not len(task.validation):
            continue
        kept = best_epoch(history)
        if kept.epoch == number:
            best = {name: t.cpu().clone() for name, t in model.trainable_state().items()}
        elif number - kept.epoch >= config.patience:
            break
    if best:
        model.load_trainable_state(best)
    model.eval()
    return history


def best_epoch(history: list[Epoch]) -> Epoch:
    """Return the first epoch with the highest validation score."""
    return max(history, key=lambda epoch: (epoch.score, -epoch.epoch))


def make_optimizer(model: ScgptClassifier, config: Finetune) -> AdamW:
    """Build AdamW with the backbone's weights (if any are trained) and the head's in groups of their own."""
    return AdamW(model.parameter_groups(config), weight_decay=config.weight_decay)


def make_schedule(optimizer: AdamW, steps: int, warmup_fraction: float) -> LambdaLR:
    """Rise linearly, then fall to zero as a cosine; one factor for all groups, so their ratio stays."""
    warmup = max(1, round(steps * warmup_fraction))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))

    return LambdaLR(optimizer, factor)


def predict(
    model: ScgptClassifier, tokens: Cells, rows: np.ndarray, device: torch.device
) -> Iterator[tuple[np.ndarray, CellOutput]]:
    """Yield rows and what the model says of them, in eval mode, cells of like length together."""
    model.to(device).eval()
    with torch.inference_mode():
        for batch in batches_by_length(rows, tokens.lengths, EVALUATION_BATCH):
            yield batch, model(tokens.batch(batch).to(device))


def _train_epoch(
    model: ScgptClassifier,
    task: Task,
    config: Finetune,
    objective: Objective,
    optimizer: AdamW,
    schedule: LambdaLR,
    order: np.random.Generator,
    device: torch.device,
) -> float:
    model.train()
    total, seen = 0.0, 0
    tokens, rows, targets = task.tokens, task.train, task.targets
    if task.draw is not None:
        tokens, rows, targets = task.draw(order), np.arange(len(task.train)), task.targets[task.train]
    batches = training_batches(rows, targets, tokens.lengths, config, order)
    for start in range(0, len(batches), config.accumulation):
        group = batches[start : start + config.accumulation]
        cells = sum(map(len, group))
        optimizer.zero_grad(set_to_none=True)
        for batch in group:
            output = model(tokens.batch(batch).to(device))
            loss = objective(output, torch.from_numpy(targets[batch]).to(device))
            if not torch.isfinite(loss):
                raise FloatingPointError(f"loss is {loss.item()} in the batch of rows {batch.tolist()}")
            (loss * (len(batch) / cells)).backward()  # type: ignore[no-untyped-call]
            total += loss.item() * len(batch)
        nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
        schedule.step()
        seen += cells
    return total / seen


def _validate(model: ScgptClassifier, task: Task, device: torch.device) -> tuple[float, float, float]:
    if not len(task.validation):
        return math.nan, math.nan, math.nan
    names = np.array(task.conditions, dtype=object)
    targets = task.targets[task.validation]
    embedding, scores = _ask(model, task.tokens, task.validation, device)
    loss = math.nan
    if scores is not None:
        loss = cross_entropy(torch.from_numpy(scores), torch.from_numpy(targets)).item()
    else:
        library = LibraryRanker("mean", prototypes=1, cells_per_prototype=1, seed=0)
        library.fit(_ask(model, task.tokens, task.train, device)[0], names[task.targets[task.train]])
        scores, names = library.scores(embedding), library.conditions
    found = metrics.compute(scores, np.array(task.conditions, dtype=object)[targets], names)
    return loss, found["exact_hit@1"], found["mrr"]


def _ask(
    model: ScgptClassifier, tokens: Cells, rows: np.ndarray, device: torch.device
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return embeddings and, with a classifier, logits, float32 [len(rows), ...] in the order of ``rows``."""
    place = np.full(len(tokens.lengths), -1)
    place[rows] = np.arange(len(rows))
    asked, outputs = zip(*predict(model, tokens, rows, device), strict=True)
    order = np.argsort(place[np.concatenate(asked)])
    embedding = torch.cat([output.embedding for output in outputs]).float().cpu().numpy()[order]
    logits = [output.logits for output in outputs if output.logits is not None]
    return embedding, torch.cat(logits).float().cpu().numpy()[order] if logits else None
