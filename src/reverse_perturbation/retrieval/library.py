"""Libraries: vectors that stand for a condition, and the ranker that searches them, exactly and in bounded memory."""

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from reverse_perturbation.gpu import gpu
from reverse_perturbation.sections import Library

if TYPE_CHECKING:
    import torch

# From prepared queries, float32 [n, d], the nearness of each condition's nearest vector and the votes of the k nearest,
# both [n, n_conditions]; no votes where k is 0.
Search = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]
BLOCK = 512  # queries at once: with 67,152 vectors 138 MB of nearness, and as much again to find the k nearest


class LibraryRanker:
    """Rank conditions by a query's nearest vectors.

    Of each condition the library holds, by ``kind``, ``bootstrap``: means of cells drawn with replacement; ``mean``:
    the mean of all its cells; ``raw_cell`` and ``raw_cell_vote``: every cell. A condition scores the nearness of its
    nearest vector: cosine similarity, or minus the Euclidean distance. For ``raw_cell_vote`` the ``neighbours`` nearest
    cells vote for their conditions (Cover and Hart 1967, doi:10.1109/TIT.1967.1053964); those as near as the last of
    them vote too, so that the order of the cells does not matter, and conditions with as many votes are ordered by
    their nearest cell.

    Parameters
    ----------
    config
        Section ``library``; its ``embedding`` is for ``Transform``. The draws of a condition's prototypes depend on the
        seed, its name and its own cells alone.
    """

    def __init__(self, config: Library):
        self.config = config
        self.conditions = np.empty(0, dtype=object)
        self._library = np.empty((0, 0), dtype=np.float32)
        self._starts = np.empty(0, dtype=np.int64)
        self._origin = np.empty(0, dtype=np.float32)

    def fit(self, reference: np.ndarray, labels: np.ndarray) -> "LibraryRanker":
        """Build the library from reference embeddings, float [n, d], and their conditions.

        Raises
        ------
        ValueError
            If there are no cells, or not a label for each.
        """
        labels = np.asarray(labels).astype(str)
        if not len(labels) or len(labels) != len(reference):
            raise ValueError(f"{len(reference)} reference cells have {len(labels)} labels")
        names, code = np.unique(labels, return_inverse=True)
        groups = np.split(np.argsort(code, kind="stable"), np.cumsum(np.bincount(code))[:-1])
        vectors = [self._vectors(name, reference[rows]) for name, rows in zip(names, groups, strict=True)]
        self.conditions = names.astype(object)
        self._starts = np.cumsum([0] + [len(v) for v in vectors[:-1]])
        self._library = self._searchable(np.concatenate(vectors))
        return self

    def scores(self, queries: np.ndarray) -> np.ndarray:
        """Return float [n_queries, n_conditions], higher is better; cosine similarities of a zero vector are 0."""
        nearest, votes = self.search(queries)
        return nearest if votes is None else votes

    def search(self, queries: np.ndarray, device: "torch.device | None" = None) -> tuple[np.ndarray, np.ndarray | None]:
        """Search once for both ways of scoring.

        Parameters
        ----------
        queries
            float [n_queries, d].
        device
            Where PyTorch computes; None: the GPU, or where there is none NumPy does.

        Returns
        -------
        nearest, votes
            float32 [n_queries, n_conditions] nearness of each condition's nearest vector, cosine similarity (0 for a
            zero vector) or minus the distance; and float64 votes plus less than one half by nearness, None unless
            the library's kind is ``raw_cell_vote``.
        """
        nearest = np.empty((len(queries), len(self.conditions)), dtype=np.float32)
        votes = np.zeros(nearest.shape) if self.config.kind == "raw_cell_vote" else None
        sizes = np.diff(np.append(self._starts, len(self._library)))
        k = 0 if votes is None else min(self.config.neighbours, len(self._library))
        device = device or gpu()
        search = _search(self._library, sizes, k) if device is None else _search_on(device, self._library, sizes, k)
        for start in range(0, len(queries), BLOCK):
            rows = slice(start, start + BLOCK)
            prepared, squares = self._prepared(queries[rows])
            best, counts = search(prepared)
            if votes is not None:
                votes[rows] = counts
            nearest[rows] = best if squares is None else -np.sqrt(np.maximum(squares - best, 0))
        if votes is not None:
            votes += (1 + nearest) / 4 if self.config.similarity == "cosine" else 0.5 / (1 - nearest)
        return nearest, votes

    def _vectors(self, name: str, cells: np.ndarray) -> np.ndarray:
        if self.config.kind == "mean":
            return cells.mean(axis=0, keepdims=True, dtype=np.float64)
        if self.config.kind != "bootstrap":
            return cells
        key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
        rng = np.random.default_rng([self.config.seed, key])
        drawn = rng.integers(len(cells), size=(self.config.prototypes, self.config.cells_per_prototype))
        result: np.ndarray = cells[drawn].mean(axis=1)
        return result

    def _searchable(self, vectors: np.ndarray) -> np.ndarray:
        """Return float32 vectors whose product with a prepared query is its nearness."""
        if self.config.similarity == "cosine":
            return unit(vectors)
        # |q - v|^2 = |q|^2 - [2q, -1] . [v, |v|^2]: one matrix product as for cosine. Distances do not depend on the
        # origin; in the library's mean the squares are smallest and float32 loses least.
        vectors = vectors.astype(np.float32)
        self._origin = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
        vectors -= self._origin
        return np.column_stack([vectors, np.square(vectors).sum(axis=1)])

    def _prepared(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return float32 [n, d] whose product with the library is the higher the nearer a vector is.

        And what minus the product is the squared distance, [n, 1].
        """
        if self.config.similarity == "cosine":
            return unit(queries), None
        moved = np.asarray(queries, dtype=np.float32) - self._origin
        extended = np.column_stack([2 * moved, np.full(len(moved), -1, dtype=np.float32)])
        return extended, np.square(moved).sum(axis=1, keepdims=True)


def _search(library: np.ndarray, sizes: np.ndarray, k: int) -> Search:
    """Return the search with NumPy; ``sizes`` are the numbers of vectors of the conditions, which follow each other."""
    starts = np.cumsum(sizes) - sizes
    condition = np.repeat(np.arange(len(sizes)), sizes)

    def search(prepared: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        near = prepared @ library.T
        return np.maximum.reduceat(near, starts, axis=1), _votes(near, condition, k) if k else None

    return search


def _search_on(device: "torch.device", library: np.ndarray, sizes: np.ndarray, k: int) -> Search:
    """Return the same search with PyTorch, in float32 too: TensorFloat-32 is off unless a program turns it on."""
    import torch

    vectors, lengths = torch.as_tensor(library, device=device), torch.as_tensor(sizes, device=device)

    def search(prepared: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        # [n_vectors, n]: the threads that reduce neighbouring queries read neighbouring numbers.
        near = vectors @ torch.as_tensor(prepared, device=device).T
        best = torch.segment_reduce(near, "max", lengths=lengths, axis=0).T.cpu().numpy()
        if not k:
            return best, None
        voting = (near >= near.topk(k, dim=0).values[-1]).float()
        return best, torch.segment_reduce(voting, "sum", lengths=lengths, axis=0).T.cpu().numpy()

    return search


def _votes(near: np.ndarray, condition: np.ndarray, k: int) -> np.ndarray:
    """Return int64 [n, n_conditions]: cells of each condition among the k nearest and those level with the last."""
    last = np.partition(near, -k, axis=1)[:, -k]
    query, cell = np.nonzero(near >= last[:, None])
    n_conditions = int(condition[-1]) + 1
    counts = np.bincount(query * n_conditions + condition[cell], minlength=len(near) * n_conditions)
    return counts.reshape(len(near), n_conditions)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scale rows to length 1, float32; a zero row stays zero."""
    vectors = np.asarray(vectors, dtype=np.float32)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
