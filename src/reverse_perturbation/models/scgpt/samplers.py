"""Which cells make a batch."""

import numpy as np
import torch

from reverse_perturbation.config import Finetune

# Batches whose cells are sorted by length together: halves the time of a step on the simulated screen, where a batch
# of random cells is a third padding, and leaves what a cell meets in its batch all but random.
GROUPED = 16
# Numbers in a layer's output for a batch of cells that are asked, not learned from. So few stay in a CPU's cache and in
# memory that is at hand already: twice as fast as 64 cells at once for 12 layers of width 512 (benchmarks/embed.py).
ASKED = {"cpu": 2**20, "gpu": 2**26}


def batches_by_length(rows: np.ndarray, lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Deal all rows into batches of cells of like length, shortest first: the least padding."""
    ordered = rows[np.argsort(lengths[rows], kind="stable")]
    return [ordered[i : i + batch_size] for i in range(0, len(ordered), batch_size)]


def batches_to_ask(rows: np.ndarray, lengths: np.ndarray, width: int, device: torch.device) -> list[np.ndarray]:
    """Deal all rows into batches of cells of like length, shortest first, of as many numbers as the device likes.

    Parameters
    ----------
    rows
        int [n], which cells.
    lengths
        int [n_cells], genes of every cell; with ``<cls>`` it has a token more.
    width
        Numbers a token.
    device
        Where the model is asked.

    Returns
    -------
    list of numpy.ndarray
        Each row in exactly one batch; a cell too large for any is alone.
    """
    ordered = rows[np.argsort(lengths[rows], kind="stable")]
    tokens = lengths[ordered] + 1
    most = ASKED["cpu" if device.type == "cpu" else "gpu"] // width
    batches, start = [], 0
    while start < len(ordered):
        # Cells from the start, each padded to the longest, the last: more tokens with each of them.
        padded = tokens[start : start + most] * np.arange(1, min(most, len(ordered) - start) + 1)
        stop = start + max(1, int(np.searchsorted(padded, most, side="right")))
        batches.append(ordered[start:stop])
        start = stop
    return batches


def random_batches(
    rows: np.ndarray, lengths: np.ndarray, batch_size: int, order: np.random.Generator
) -> list[np.ndarray]:
    """Deal all rows into batches of cells of like length, in random order.

    Parameters
    ----------
    rows
        int [n], which cells.
    lengths
        int [n_cells], tokens of every cell.
    batch_size
        Cells a batch; the last one may be smaller.
    order
        Decides all that is random.

    Returns
    -------
    list of numpy.ndarray
        Each row in exactly one batch.
    """
    shuffled = order.permutation(rows)
    step = batch_size * GROUPED
    batches = []
    for start in range(0, len(shuffled), step):
        batches += batches_by_length(shuffled[start : start + step], lengths, batch_size)
    return [batches[i] for i in order.permutation(len(batches))]


def balanced_batches(
    rows: np.ndarray, targets: np.ndarray, batch_size: int, cells_per_condition: int, order: np.random.Generator
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
    order
        Decides all that is random.

    Returns
    -------
    list of numpy.ndarray
        As many batches, all whole, as cover ``n`` cells once.
    """
    cells = {int(target): _Deck(rows[targets == target], order) for target in np.unique(targets)}
    conditions = _Deck(np.array(list(cells)), order)
    hands = (conditions.deal(batch_size // cells_per_condition) for _ in range(-(-len(rows) // batch_size)))
    return [np.concatenate([cells[int(i)].deal(cells_per_condition) for i in hand]) for hand in hands]


def training_batches(
    rows: np.ndarray, targets: np.ndarray, lengths: np.ndarray, config: Finetune, order: np.random.Generator
) -> list[np.ndarray]:
    """Return the batches of an epoch; ``targets`` and ``lengths`` are of every cell, ``rows`` those to learn from."""
    if config.sampler == "balanced":
        return balanced_batches(rows, targets[rows], config.batch_size, config.cells_per_condition, order)
    return random_batches(rows, lengths, config.batch_size, order)


class _Deck:
    """Items in random order, each dealt once before any is dealt again; none twice in a hand unless it must be."""

    def __init__(self, items: np.ndarray, order: np.random.Generator):
        self.items = items
        self.order = order
        self.left = items[:0]

    def deal(self, n: int) -> np.ndarray:
        hand, self.left = self.left[:n], self.left[n:]
        while len(hand) < n:
            fresh = self.order.permutation(self.items)
            held = (fresh[:, None] == hand).sum(axis=1)
            fresh = fresh[np.argsort(held, kind="stable")]  # those in the hand already come last
            wanted = n - len(hand)
            hand, self.left = np.concatenate([hand, fresh[:wanted]]), fresh[wanted:]
        return hand
