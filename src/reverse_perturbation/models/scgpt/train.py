"""Fine-tuning: the loop, its learning rates, and the choice of the epoch to keep."""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.optim import AdamW

from reverse_perturbation.config import Finetune, Library
from reverse_perturbation.errors import InputError
from reverse_perturbation.models.scgpt.adapters import held
from reverse_perturbation.models.scgpt.classifier import ScgptClassifier
from reverse_perturbation.models.scgpt.collapse import ADVICE, chance_mrr, check_collapse, spread
from reverse_perturbation.models.scgpt.ema import Ema
from reverse_perturbation.models.scgpt.history import Epoch, chosen_epoch, highest_epoch
from reverse_perturbation.models.scgpt.losses import Objective, natural_log_prior
from reverse_perturbation.models.scgpt.resume import Progress
from reverse_perturbation.models.scgpt.samplers import batches_to_ask, training_batches
from reverse_perturbation.models.scgpt.schedule import make_schedule
from reverse_perturbation.models.scgpt.tokens import Cells
from reverse_perturbation.retrieval import metrics
from reverse_perturbation.retrieval.library import LibraryRanker

LIBRARY_CELLS = 50  # training cells a condition in the library of each epoch: enough for its mean, and soon embedded
MEANS = Library(
    kind="mean", embedding="plain", similarity="cosine", prototypes=1, cells_per_prototype=1, neighbours=1, seed=0
)


@dataclass(frozen=True)
class Task:
    """The cells of a training run.

    Attributes
    ----------
    cells
        Ids of all cells of the split.
    tokens
        Theirs.
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

    cells: np.ndarray
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
    accelerator: Accelerator,
    include_untrained: bool = False,
    state: Path | None = None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> list[Epoch]:
    """Train in place and leave the weights of the chosen epoch in the model.

    With a validation part, training stops ``config.patience`` epochs after the highest one, and the weights of the
    chosen one (see ``history``) are put back; without, it runs ``epochs`` epochs. The learning rates follow one curve
    over ``config.epochs`` in both cases, so that a refit of n epochs repeats the course of the first n. With
    ``config.ema`` it is the running mean of the weights that is judged and left in the model.

    Of several processes each takes its share of every batch and all take the same steps, so that there are as many as
    with one; a contrastive loss sees the pairs within a share. Each validates on its own.

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
    accelerator
        Where to compute, with how many processes and in which precision; validation is in float32.
    include_untrained
        Let the model as it is given take part in the choice, as epoch 0.
    state
        File in which the state is kept after each epoch, and from which training goes on where there is one. It must be
        that of the same task, settings and start.
    on_epoch
        Called after each epoch, those of an interrupted run included.

    Returns
    -------
    list of Epoch
        The course of training.

    Raises
    ------
    InputError
        If the loss is not finite; the cells of the batch are named, and ``state`` is that of the last whole epoch. If
        training has come to nothing, see ``collapse``.
    """
    device = accelerator.device
    torch.manual_seed(seed)
    model.to(device)
    log_prior = None
    if config.sampler == "balanced" and config.prior_correction:
        log_prior = natural_log_prior(task.targets[task.train], len(task.conditions)).to(device)
        model.start_from_prior(log_prior)
    objective = Objective(config.loss, task.conditions, log_prior)
    now = _begin(model, task, config, seed)
    start_spread = (
        spread(_in_order(model, task.tokens, task.validation, device)[0]) if len(task.validation) else math.nan
    )
    if state is not None and state.exists():
        now.load(state)
        print(f"{state.stem}: an interrupted run goes on after epoch {now.history[-1].epoch}", flush=True)
        for epoch in now.history:
            on_epoch(epoch)
    first = now.history[-1].epoch + 1 if now.history else 0 if include_untrained else 1
    for number in range(first, epochs + 1):
        if now.history and number - 1 - highest_epoch(now.history).epoch >= config.patience:
            break
        start = time.perf_counter()
        loss = math.nan
        if number:
            with held(model.backbone, number <= config.probe_epochs):
                loss = _train_epoch(now, task, config, objective, accelerator)
        rates = {group["name"]: group["lr"] for group in now.optimizer.param_groups}
        with now.ema.in_place(model) if now.ema else nullcontext():
            epoch = Epoch(
                number,
                loss,
                backbone_learning_rate=rates.get("backbone", 0.0),
                head_learning_rate=rates["head"],
                **_validate(model, task, device),
                seconds=time.perf_counter() - start,
            )
            now.history.append(epoch)
            if chosen_epoch(now.history) is epoch:
                now.chosen = {name: t.cpu().clone() for name, t in model.trainable_state().items()}
        on_epoch(epoch)
        check_collapse(now.history, start_spread, config)
        if state is not None and accelerator.is_main_process:
            now.save(state)
    accelerator.wait_for_everyone()
    if now.chosen:
        model.load_trainable_state(now.chosen)
    model.eval()
    return now.history


def _begin(model: ScgptClassifier, task: Task, config: Finetune, seed: int) -> Progress:
    optimizer = make_optimizer(model, config)
    steps = math.ceil(math.ceil(len(task.train) / config.batch_size) / config.accumulation)
    schedule = make_schedule(optimizer, steps * config.epochs, config.warmup_fraction, steps * config.probe_epochs)
    ema = Ema(model, config.ema) if config.ema else None
    return Progress(model, optimizer, schedule, ema, np.random.default_rng(seed))


def make_optimizer(model: ScgptClassifier, config: Finetune) -> AdamW:
    """Build AdamW with the backbone's weights (if any are trained) and the head's in groups of their own."""
    return AdamW(model.parameter_groups(config), weight_decay=config.weight_decay)


def ask(
    model: ScgptClassifier, tokens: Cells, rows: np.ndarray, device: torch.device, share: slice = slice(None)
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Ask a model, in eval mode, about cells, those of like length together.

    Parameters
    ----------
    model
        In any mode.
    tokens
        Of all cells.
    rows
        int [n], which cells; at least one.
    device
        Where to compute.
    share
        Which of the batches.

    Returns
    -------
    asked, embedding, logits
        Rows in the order in which they were asked; float32 [len(asked), ...]; None without a classifier.
    """
    model.to(device).eval()
    batches = batches_to_ask(rows, tokens.lengths, model.width, device)
    batches = batches[share] or batches[:1]  # a process too many does what the first one does
    asked = np.concatenate(batches)
    # Not a list of small results: between the batches' large arrays each keeps the allocator from using their memory
    # again, which with every cell of Norman came to gigabytes.
    found: list[np.ndarray] = []
    start = 0
    with torch.inference_mode():
        for batch in batches:
            output = model(tokens.batch(batch).to(device))
            parts = [part for part in (output.embedding, output.logits) if part is not None]
            found = found or [np.empty((len(asked), part.shape[1]), dtype=np.float32) for part in parts]
            for whole, part in zip(found, parts, strict=True):
                whole[start : start + len(batch)] = part.float().cpu().numpy()
            start += len(batch)
    return asked, found[0], found[1] if len(found) > 1 else None


def _train_epoch(now: Progress, task: Task, config: Finetune, objective: Objective, accelerator: Accelerator) -> float:
    now.model.train()
    total, seen = 0.0, 0
    tokens, rows, targets, cells = task.tokens, task.train, task.targets, task.cells
    if task.draw is not None:
        tokens, rows = task.draw(now.order), np.arange(len(task.train))
        targets, cells = targets[task.train], cells[task.train]
    batches = training_batches(rows, targets, tokens.lengths, config, now.order)
    for start in range(0, len(batches), config.accumulation):
        group = batches[start : start + config.accumulation]
        size = sum(map(len, group))
        now.optimizer.zero_grad(set_to_none=True)
        for batch in group:
            share, weight = _share(batch, accelerator)
            with accelerator.autocast():
                output = now.model(tokens.batch(share).to(accelerator.device))
                loss = objective(output, torch.from_numpy(targets[share]).to(accelerator.device))
            if not torch.isfinite(loss):
                raise InputError(f"loss is {loss.item()} in the batch of cells {', '.join(cells[share])}; {ADVICE}")
            accelerator.backward(loss * (weight / size))
            total += loss.item() * weight
        if accelerator.num_processes > 1:
            _add_gradients(now.model, accelerator)
        nn.utils.clip_grad_norm_(now.model.parameters(), config.clip_norm)
        now.optimizer.step()
        now.schedule.step()
        if now.ema:
            now.ema.update(now.model)
        seen += size
    return float(accelerator.reduce(torch.tensor(total, dtype=torch.float64, device=accelerator.device), "sum")) / seen


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


def _validate(model: ScgptClassifier, task: Task, device: torch.device) -> dict[str, float]:
    """Return the validation figures of an :class:`Epoch`, by name; none in a refit."""
    if not len(task.validation):
        return {}
    names = np.array(task.conditions, dtype=object)
    truth = task.targets[task.validation]
    embedding, logits = _in_order(model, task.tokens, task.validation, device)
    by_library = _by_library(model, task, embedding, device)
    scores = by_library if logits is None else logits
    found, library = (metrics.compute(each, names[truth], names) for each in (scores, by_library))
    hit = found["exact_hit@1"]
    loss = math.nan
    if logits is not None:
        loss = cross_entropy(torch.from_numpy(logits), torch.from_numpy(truth)).item()
    return {
        "validation_loss": loss,
        "exact_hit_at_1": hit,
        "exact_hit_at_1_error": math.sqrt(hit * (1 - hit) / len(truth)),
        "mrr": found["mrr"],
        "library_exact_hit_at_1": library["exact_hit@1"],
        "library_mrr": library["mrr"],
        "chance_mrr": chance_mrr(scores, truth),
        "spread": spread(embedding),
    }


def _by_library(model: ScgptClassifier, task: Task, embedding: np.ndarray, device: torch.device) -> np.ndarray:
    """Return the similarity of embeddings to each condition's mean over some training cells, [n, n_conditions]."""
    targets = task.targets[task.train]
    order = np.argsort(targets, kind="stable")
    place = np.arange(len(order)) - np.searchsorted(targets[order], targets[order])  # within the condition
    rows = task.train[order[place < LIBRARY_CELLS]]
    library = LibraryRanker(MEANS)
    library.fit(_in_order(model, task.tokens, rows, device)[0], task.targets[rows])
    similarity = np.full((len(embedding), len(task.conditions)), -1.0, dtype=np.float32)
    similarity[:, library.conditions.astype(int)] = library.scores(embedding)
    return similarity


def _in_order(
    model: ScgptClassifier, tokens: Cells, rows: np.ndarray, device: torch.device
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return embeddings and, with a classifier, logits of some cells, in their order."""
    place = np.full(len(tokens.lengths), -1)
    place[rows] = np.arange(len(rows))
    asked, embedding, logits = ask(model, tokens, rows, device)
    order = np.argsort(place[asked])
    return embedding[order], None if logits is None else logits[order]
