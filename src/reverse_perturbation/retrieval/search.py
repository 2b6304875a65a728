"""Exact search in a library, in bounded memory: cosine or Euclidean, by the nearest vector or a vote of the nearest."""

import numpy as np

from reverse_perturbation.config import Library
from reverse_perturbation.retrieval.library import LibraryRanker, unit

BLOCK = (
    512  # queries at once: with 67,152 library vectors, 138 MB of nearness, and the same again to find the k nearest
)


class SearchRanker(LibraryRanker):
    """Rank conditions by a query's nearest vectors.

    For ``bootstrap``, ``mean`` and ``raw_cell`` a condition scores the nearness of its nearest vector: cosine
    similarity, or minus the Euclidean distance. For ``raw_cell_vote`` the ``neighbours`` nearest reference cells vote
    for their conditions (Cover and Hart 1967, doi:10.1109/TIT.1967.1053964); those as near as the last of them vote
    too, so that the order of the cells does not matter, and conditions with as many votes are ordered by their nearest
    cell.

    Parameters
    ----------
    config
        Section ``library``; its ``embedding`` is for ``Transform``.
    """

    def __init__(self, config: Library):
        super().__init__(
            "raw_cell" if config.kind == "raw_cell_vote" else config.kind,
            prototypes=config.prototypes,
            cells_per_prototype=config.cells_per_prototype,
            seed=config.seed,
        )
        self.vote = config.kind == "raw_cell_vote"
        self.similarity = config.similarity
        self.neighbours = config.neighbours
        self._origin = np.empty(0)

    def fit(self, reference: np.ndarray, labels: np.ndarray) -> "SearchRanker":
        """Build the library from reference embeddings, float [n, d], and their conditions.

        Raises
        ------
        ValueError
            If there are no cells, or not a label for each.
        """
        super().fit(reference, labels)
        if self.similarity == "euclidean":
            # |q - v|^2 = |q|^2 - [2q, -1] . [v, |v|^2]: one matrix product as for cosine. Distances do not depend on
            # the origin; in the library's mean the squares are smallest and float32 loses least.
            groups = [self._vectors(str(name), reference[labels == name]) for name in self.conditions]
            vectors = np.concatenate(groups).astype(np.float32)
            self._origin = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
            vectors -= self._origin
            self._library = np.column_stack([vectors, np.square(vectors).sum(axis=1)])
        return self

    def scores(self, queries: np.ndarray) -> np.ndarray:
        """Return float [n_queries, n_conditions], higher is better."""
        nearest, votes = self.search(queries)
        return votes if votes is not None else nearest

    def search(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Search once for both ways of scoring.

        Returns
        -------
        nearest, votes
            float32 [n_queries, n_conditions] nearness of each condition's nearest vector, cosine similarity (0 for a
            zero vector) or minus the distance; and float64 votes plus less than one half by nearness, None unless
            the library's kind is ``raw_cell_vote``.
        """
        nearest = np.empty((len(queries), len(self.conditions)), dtype=np.float32)
        votes = np.zeros(nearest.shape) if self.vote else None
        sizes = np.diff(np.append(self._starts, len(self._library)))
        condition = np.repeat(np.arange(len(sizes)), sizes)
        for start in range(0, len(queries), BLOCK):
            rows = slice(start, start + BLOCK)
            near, squares = self._near(queries[rows])
            best = np.maximum.reduceat(near, self._starts, axis=1)
            if votes is not None:
                votes[rows] = _votes(near, condition, min(self.neighbours, len(condition)))
            nearest[rows] = best if squares is None else -np.sqrt(np.maximum(squares - best, 0))
        if votes is not None:
            votes += (1 + nearest) / 4 if self.similarity == "cosine" else 0.5 / (1 - nearest)
        return nearest, votes

    def _near(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return float32 [n, n_vectors], the higher the nearer, and what minus it is the squared distance, [n, 1]."""
        if self.similarity == "cosine":
            return unit(queries) @ self._library.T, None
        moved = np.asarray(queries, dtype=np.float32) - self._origin
        asked = np.column_stack([2 * moved, np.full(len(moved), -1, dtype=np.float32)])
        return asked @ self._library.T, np.square(moved).sum(axis=1, keepdims=True)


def _votes(near: np.ndarray, condition: np.ndarray, k: int) -> np.ndarray:
    """Return int64 [n, n_conditions]: cells of each condition among the k nearest and those level with the last."""
    last = np.partition(near, -k, axis=1)[:, -k]
    query, cell = np.nonzero(near >= last[:, None])
    n_conditions = int(condition[-1]) + 1
    counts = np.bincount(query * n_conditions + condition[cell], minlength=len(near) * n_conditions)
    return counts.reshape(len(near), n_conditions)
