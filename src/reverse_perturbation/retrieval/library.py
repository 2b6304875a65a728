"""Libraries: vectors that stand for a condition, and the ranker that compares a query with them."""

import hashlib

import numpy as np

from reverse_perturbation.config import LibraryKind

BLOCK = 1024  # queries scored at once: with 67,152 library vectors, 275 MB of similarities


class LibraryRanker:
    """Rank conditions by the highest cosine similarity of a query to one of their vectors.

    Parameters
    ----------
    kind
        ``bootstrap``: means of cells drawn with replacement; ``mean``: the mean of all cells; ``raw_cell``:
        every cell.
    prototypes, cells_per_prototype, seed
        For ``bootstrap``. The draws of a condition depend on the seed, its name and its own cells alone.
    """

    def __init__(self, kind: LibraryKind, *, prototypes: int, cells_per_prototype: int, seed: int):
        self.kind = kind
        self.prototypes = prototypes
        self.cells_per_prototype = cells_per_prototype
        self.seed = seed
        self.conditions = np.empty(0, dtype=object)
        self._library = np.empty((0, 0), dtype=np.float32)
        self._starts = np.empty(0, dtype=np.int64)

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
        self._library = unit(np.concatenate(vectors))
        return self

    def scores(self, queries: np.ndarray) -> np.ndarray:
        """Return float32 [n_queries, n_conditions] cosine similarities; those of a zero vector are 0."""
        found = np.empty((len(queries), len(self.conditions)), dtype=np.float32)
        for start in range(0, len(queries), BLOCK):
            similarity = unit(queries[start : start + BLOCK]) @ self._library.T
            found[start : start + BLOCK] = np.maximum.reduceat(similarity, self._starts, axis=1)
        return found

    def _vectors(self, name: str, cells: np.ndarray) -> np.ndarray:
        if self.kind == "raw_cell":
            return cells
        if self.kind == "mean":
            return cells.mean(axis=0, keepdims=True, dtype=np.float64)
        key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
        rng = np.random.default_rng([self.seed, key])
        drawn = rng.integers(len(cells), size=(self.prototypes, self.cells_per_prototype))
        result: np.ndarray = cells[drawn].mean(axis=1)
        return result


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scale rows to length 1, float32; a zero row stays zero."""
    vectors = np.asarray(vectors, dtype=np.float32)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
