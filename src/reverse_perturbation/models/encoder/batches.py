"""Which cells share a batch."""

import numpy as np
import torch

from reverse_perturbation.sections import Sampler

# Batches whose cells are sorted by length together: halves the time of a step on the simulated screen, where a batch
# of random cells is a third padding, and keeps the composition of a batch nearly random.
GROUPED = 16
# Numbers in a layer's output for a batch in inference. On a CPU so few stay in the cache and in memory that is mapped
# already: twice as fast as 64 cells at once for 12 layers of width 512 (benchmarks/embed.py).
INFERENCE_TOKENS = {"cpu": 2**20, "gpu": 2**26}


def batches_by_length(rows: np.ndarray, lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Deal all rows into batches of cells of similar length, shortest first: the least padding."""
    ordered = rows[np.argsort(lengths[rows], kind="stable")]
    return [ordered[i : i + batch_size] for i in range(0, len(ordered), batch_size)]


def inference_batches(rows: np.ndarray, lengths: np.ndarray, width: int, device: torch.device) -> list[np.ndarray]:
    """Deal all rows into batches of cells of similar length, shortest first, each as large as suits the device.

    Parameters
    ----------
    rows
        int [n], which cells.
    lengths
        int [n_cells], genes of every cell; with ``<cls>`` it has a token more.
    width
        Numbers a token.
    device
        Where the model computes.

    Returns
    -------
    list of numpy.ndarray
        Each row in exactly one batch; a cell too large for any is alone.
    """
    ordered = rows[np.argsort(lengths[rows], kind="stable")]
    tokens = lengths[ordered] + 1
    most = INFERENCE_TOKENS["cpu" if device.type == "cpu" else "gpu"] // width
    batches, start = [], 0
    while start < len(ordered):
        # Cells from the start, each padded to the longest, the last: more tokens with each of them.
        padded = tokens[start : start + most] * np.arange(1, min(most, len(ordered) - start) + 1)
        stop = start + max(1, int(np.searchsorted(padded, most, side="right")))
        batches.append(ordered[start:stop])
        start = stop
    return batches


def random_batches(
    rows: np.ndarray, lengths: np.ndarray, batch_size: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Deal all rows into batches of cells of similar length, in random order.

    Parameters
    ----------
    rows
        int [n], which cells.
    lengths
        int [n_cells], tokens of every cell.
    batch_size
        Cells a batch; the last one may be smaller.
    rng
        Source of all randomness.

    Returns
    -------
    list of numpy.ndarray
        Each row in exactly one batch.
    """
    shuffled = rng.permutation(rows)
    step = batch_size * GROUPED
    batches = []
    for start in range(0, len(shuffled), step):
        batches += batches_by_length(shuffled[start : start + step], lengths, batch_size)
    return [batches[i] for i in rng.permutation(len(batches))]


def balanced_batches(
    rows: np.ndarray, targets: np.ndarray, batch_size: int, cells_per_condition: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Make batches with the same number of cells of each condition they hold.

    Conditions, and the cells of each, are dealt in random order, each once before any comes again; so over an epoch,
    each condition comes equally often, give or take one. A condition with fewer cells than are wanted gives all of them
    and some again. Where a batch has room for more conditions than there are, they come again with their next cells.

    Parameters
    ----------
    rows
        int [n], which cells.
    targets
        int [n], their conditions.
    batch_size
        Cells a batch, a multiple of ``cells_per_condition``.
    cells_per_condition
        Of each condition in a batch.
    rng
        Source of all randomness.

    Returns
    -------
    list of numpy.ndarray
        As many batches, all whole, as cover ``n`` cells once.
    """
    cells = {int(target): _Deck(rows[targets == target], rng) for target in np.unique(targets)}
    conditions = _Deck(np.array(list(cells)), rng)
    hands = (conditions.deal(batch_size // cells_per_condition) for _ in range(-(-len(rows) // batch_size)))
    return [np.concatenate([cells[int(i)].deal(cells_per_condition) for i in hand]) for hand in hands]


def training_batches(
    rows: np.ndarray, targets: np.ndarray, lengths: np.ndarray, config: Sampler, rng: np.random.Generator
) -> list[np.ndarray]:
    """Return the batches of an epoch; ``targets`` and ``lengths`` are of every cell, ``rows`` the training cells."""
    if config.kind == "balanced":
        return balanced_batches(rows, targets[rows], config.batch_size, config.cells_per_condition, rng)
    return random_batches(rows, lengths, config.batch_size, rng)


class _Deck:
    """Items in random order, each dealt once before any is dealt again; none twice in a hand unless it must be."""

    def __init__(self, items: np.ndarray, rng: np.random.Generator):
        self.items = items
        self.rng = rng
        self.left = items[:0]

    def deal(self, n: int) -> np.ndarray:
        hand, self.left = self.left[:n], self.left[n:]
        while len(hand) < n:
            shuffled = self.rng.permutation(self.items)
            in_hand = (shuffled[:, None] == hand).sum(axis=1)
            shuffled = shuffled[np.argsort(in_hand, kind="stable")]  # items in the hand already come last
            missing = n - len(hand)
            hand, self.left = np.concatenate([hand, shuffled[:missing]]), shuffled[missing:]
        return hand
