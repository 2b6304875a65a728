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
    screen_sha256
        Of the masked screen the model was given, see ``data.fingerprint``; None where it is not known.
    control_mean
        float32 [d], mean embedding of the control cells, which are in no part of the split; None without them.
    """

    cells: np.ndarray
    log_proba: np.ndarray | None
    conditions: np.ndarray | None
    embedding: np.ndarray | None
    screen_sha256: str | None = None
    control_mean: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.log_proba is None and self.embedding is None:
            raise ValueError("outputs hold neither class probabilities nor an embedding")
        if (self.log_proba is None) != (self.conditions is None):
            raise ValueError("log_proba and conditions come together or not at all")
        for name in ("log_proba", "embedding"):
            values = getattr(self, name)
            if values is not None and (values.ndim != 2 or len(values) != len(self.cells)):
                raise ValueError(f"{name} is of shape {values.shape} for {len(self.cells)} cells")
            if values is not None and np.isnan(values).any():
                raise ValueError(f"{name} holds NaN")
        if self.control_mean is not None and (
            self.embedding is None or self.control_mean.shape != self.embedding.shape[1:]
        ):
            raise ValueError("control_mean is not of the embedding's dimensions")
        if self.log_proba is not None and self.conditions is not None:
            if self.log_proba.shape[1] != len(self.conditions):
                raise ValueError("log_proba needs one column a condition")
            if len(set(self.conditions)) < len(self.conditions):
                raise ValueError("a condition is named twice")

    def save(self, path: str | Path) -> None:
        """Write an .npz without pickled objects, atomically."""
        arrays = {"cells": self.cells.astype(str)}
        if self.log_proba is not None and self.conditions is not None:
            arrays["log_proba"] = self.log_proba.astype(np.float32)
            arrays["conditions"] = self.conditions.astype(str)
        if self.embedding is not None:
            arrays["embedding"] = self.embedding.astype(np.float32)
        if self.control_mean is not None:
            arrays["control_mean"] = self.control_mean.astype(np.float32)
        if self.screen_sha256 is not None:
            arrays["screen_sha256"] = np.array(self.screen_sha256)
        with write_atomically(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | Path) -> "Outputs":
        """Read what :meth:`save` wrote.

        Raises
        ------
        InputError
            If the file is missing, broken, or something else.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                names = {name.removesuffix(".npy") for name in archive.namelist()}
            with np.load(path, allow_pickle=False) as file:
                found = {name: file[name] for name in names}
            return cls(
                cells=found["cells"].astype(object),
                log_proba=found.get("log_proba"),
                conditions=found["conditions"].astype(object) if "conditions" in found else None,
                embedding=found.get("embedding"),
                screen_sha256=str(found["screen_sha256"]) if "screen_sha256" in found else None,
                control_mean=found.get("control_mean"),
            )
        except FileNotFoundError:
            raise InputError(f"{path}: no such file; run `dvc repro` to make it") from None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: not the outputs of a model ({error}); run `dvc repro` again") from None
