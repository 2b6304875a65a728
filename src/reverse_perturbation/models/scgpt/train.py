"""Fine-tuning: the loop, its learning rates, and the choice of the epoch to keep."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from reverse_perturbation.config import Finetune
from reverse_perturbation.models.scgpt.cache import CachedTokens
from reverse_perturbation.models.scgpt.adapters import frozen
from reverse_perturbation.models.scgpt.classifier import ScgptClassifier
from reverse_perturbation.models.scgpt.ema import Ema
from reverse_perturbation.models.scgpt.heads import CellOutput
from reverse_perturbation.models.scgpt.losses import Objective, natural_log_prior
from reverse_perturbation.models.scgpt.samplers import training_batches
from reverse_perturbation.models.scgpt.schedule import make_schedule
from reverse_perturbation.models.scgpt.tokens import Tokens
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

    tokens: Tokens | CachedTokens
    targets: np.ndarray
    conditions: list[str]
    train: np.ndarray
    validation: np.ndarray
    draw: Callable[[np.random.Generator], Tokens] | None = None


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
    ``config.epochs`` in both cases, so that a refit of n epochs repeats the course of the first n. With ``config.ema``
    it is the running mean of the weights that is judged and left in the model.

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
    if config.sampler == "balanced" and config.prior_correction:
        log_prior = natural_log_prior(task.targets[task.train], len(task.conditions)).to(device)
        model.start_from_prior(log_prior)
    objective = Objective(config.loss, task.conditions, log_prior)
    steps_per_epoch = math.ceil(math.ceil(len(task.train) / config.batch_size) / config.accumulation)
    probe_steps = steps_per_epoch * config.probe_epochs
    schedule = make_schedule(optimizer, steps_per_epoch * config.epochs, config.warmup_fraction, probe_steps)
    ema = Ema(model, config.ema) if config.ema else None
    history: list[Epoch] = []
    best: dict[str, Tensor] = {}
    for number in range(0 if include_untrained else 1, epochs + 1):
        start = time.perf_counter()
        loss = math.nan
        if number:
            with frozen(model.backbone, number <= config.probe_epochs):
                loss = _train_epoch(model, task, config, objective, optimizer, schedule, ema, order, device)
        rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
        with ema.in_place(model) if ema else nullcontext():
            found = _validate(model, task, device)
            epoch = Epoch(number, loss, *found, rates.get("backbone", 0.0), rates["head"], time.perf_counter() - start)
            history.append(epoch)
            if not len(task.validation) or best_epoch(history).epoch == number:
                best = {name: t.cpu().clone() for name, t in model.trainable_state().items()}
        on_epoch(epoch)
        if len(task.validation) and number - best_epoch(history).epoch >= config.patience:
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


def predict(
    model: ScgptClassifier, tokens: Tokens | CachedTokens, rows: np.ndarray, device: torch.device
) -> Iterator[tuple[np.ndarray, CellOutput]]:
    """Yield rows and what the model says of them, in eval mode, cells of like length together."""
    model.to(device).eval()
    by_length = rows[np.argsort(tokens.lengths[rows], kind="stable")]
    with torch.inference_mode():
        for start in range(0, len(by_length), EVALUATION_BATCH):
            batch = by_length[start : start + EVALUATION_BATCH]
            yield batch, model(*(t.to(device) for t in tokens.batch(batch)))


def _train_epoch(
    model: ScgptClassifier,
    task: Task,
    config: Finetune,
    objective: Objective,
    optimizer: AdamW,
    schedule: LambdaLR,
    ema: Ema | None,
    order: np.random.Generator,
    device: torch.device,
) -> float:
    model.train()
    total, seen = 0.0, 0
    tokens: Tokens | CachedTokens = task.tokens
    rows, targets = task.train, task.targets
    if task.draw is not None:
        tokens, rows, targets = task.draw(order), np.arange(len(task.train)), task.targets[task.train]
    batches = training_batches(rows, targets, tokens.lengths, config, order)
    for start in range(0, len(batches), config.accumulation):
        group = batches[start : start + config.accumulation]
        cells = sum(map(len, group))
        optimizer.zero_grad(set_to_none=True)
        for batch in group:
            output = model(*(t.to(device) for t in tokens.batch(batch)))
            loss = objective(output, torch.from_numpy(targets[batch]).to(device))
            if not torch.isfinite(loss):
                raise FloatingPointError(f"loss is {loss.item()} in the batch of rows {batch.tolist()}")
            (loss * (len(batch) / cells)).backward()  # type: ignore[no-untyped-call]
            total += loss.item() * len(batch)
        nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
        schedule.step()
        if ema:
            ema.update(model)
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
    model: ScgptClassifier, tokens: Tokens | CachedTokens, rows: np.ndarray, device: torch.device
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return embeddings and, with a classifier, logits, float32 [len(rows), ...] in the order of ``rows``."""
    place = np.full(len(tokens.lengths), -1)
    place[rows] = np.arange(len(rows))
    asked, outputs = zip(*predict(model, tokens, rows, device), strict=True)
    order = np.argsort(place[np.concatenate(asked)])
    embedding = torch.cat([output.embedding for output in outputs]).float().cpu().numpy()[order]
    logits = [output.logits for output in outputs if output.logits is not None]
    return embedding, torch.cat(logits).float().cpu().numpy()[order] if logits else None
