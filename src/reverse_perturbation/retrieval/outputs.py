"""What a model says of every cell of the split: the one format between models and evaluation."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reverse_perturbation.errors import InputError
from reverse_perturbation.storage import write_atomically


@dataclass(frozen=True)
class Outputs:
    """A model's answers, one row a cell in the order of the split.

    Attributes
    ----------
    cells
        Ids, object array of str [n].
    log_proba
        float32 [n, n_conditions], or None for a model without a classifier.
    conditions
        Object array of str [n_conditions], the columns of ``log_proba``; None with it.
    embedding
        float32 [n, d], or None for a model without one.
    """

    cells: np.ndarray
    log_proba: np.ndarray | None
    conditions: np.ndarray | None
    embedding: np.ndarray | None

    def __post_init__(self) -> None:
        if self.log_proba is None and self.embedding is None:
            raise ValueError("outputs hold neither class probabilities nor an embedding")
        for name in ("log_proba", "embedding"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.cells):
                raise ValueError(f"{name} has {len(values)} rows for {len(self.cells)} cells")
        if self.log_proba is not None and (self.conditions is None or self.log_proba.shape[1] != len(self.conditions)):
            raise ValueError("log_proba needs one column a condition")

    def save(self, path: str | Path) -> None:
        """Write an .npz without pickled objects, atomically."""
        arrays = {"cells": self.cells.astype(str)}
        if self.log_proba is not None and self.conditions is not None:
            arrays |= {"log_proba": self.log_proba.astype(np.float32), "conditions": self.conditions.astype(str)}
        if self.embedding is not None:
            arrays["embedding"] = self.embedding.astype(np.float32)
        with write_atomically(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | Path) -> "Outputs":
        """Read what :meth:`save` wrote.

        Raises
        ------
        InputError
            If the file is missing or broken.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                found = {name: file[name] for name in file.files}
            return cls(
                found["cells"].astype(object),
                found.get("log_proba"),
                found["conditions"].astype(object) if "conditions" in found else None,
                found.get("embedding"),
            )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: not the outputs of a model ({error}); run `dvc repro` to make them again") from None
