"""What a model predicts for every cell of the split: the one format between models and evaluation."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reverse_perturbation.errors import InputError
from reverse_perturbation.storage import write_atomically


@dataclass(frozen=True)
class Predictions:
    """A model's predictions, one row a cell in the order of the split.

    Attributes
    ----------
    cell_ids
        Object array of str [n].
    log_proba
        float32 [n, n_conditions], finite, or None for a model without a classifier.
    conditions
        Object array of str [n_conditions], the columns of ``log_proba``; None with it.
    embedding
        float32 [n, d], finite, or None for a model without one.
    screen_sha256
        Hash of the masked screen the model was given, of ``fingerprint``; None where it is not known.
    control_mean
        float32 [d], mean embedding of the control cells, which are in no part of the split; None without them.

    Arrays of another precision are stored as float32.

    Raises
    ------
    ValueError
        If shapes do not fit, a condition is named twice, or a number is NaN or infinite.
    """

    cell_ids: np.ndarray
    log_proba: np.ndarray | None
    conditions: np.ndarray | None
    embedding: np.ndarray | None
    screen_sha256: str | None = None
    control_mean: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.log_proba is None and self.embedding is None:
            raise ValueError("predictions hold neither class probabilities nor an embedding")
        if (self.log_proba is None) != (self.conditions is None):
            raise ValueError("log_proba and conditions come together or not at all")
        for name in ("log_proba", "embedding", "control_mean"):
            if (values := getattr(self, name)) is None:
                continue
            with np.errstate(over="ignore"):
                values = np.asarray(values, dtype=np.float32)
            object.__setattr__(self, name, values)
            if name != "control_mean" and (values.ndim != 2 or len(values) != len(self.cell_ids)):
                raise ValueError(f"{name} is of shape {values.shape} for {len(self.cell_ids)} cells")
            if not np.isfinite(values).all():
                found = values[~np.isfinite(values)][0]
                raise ValueError(f"{name} holds {found} (in float32); it must be finite")
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
        arrays = {"cell_ids": self.cell_ids.astype(str)}
        if self.log_proba is not None and self.conditions is not None:
            arrays["log_proba"] = self.log_proba
            arrays["conditions"] = self.conditions.astype(str)
        if self.embedding is not None:
            arrays["embedding"] = self.embedding
        if self.control_mean is not None:
            arrays["control_mean"] = self.control_mean
        if self.screen_sha256 is not None:
            arrays["screen_sha256"] = np.array(self.screen_sha256)
        with write_atomically(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | Path) -> "Predictions":
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
                arrays = {name: file[name] for name in names}
            return cls(
                cell_ids=arrays["cell_ids"].astype(object),
                log_proba=arrays.get("log_proba"),
                conditions=arrays["conditions"].astype(object) if "conditions" in arrays else None,
                embedding=arrays.get("embedding"),
                screen_sha256=str(arrays["screen_sha256"]) if "screen_sha256" in arrays else None,
                control_mean=arrays.get("control_mean"),
            )
        except FileNotFoundError:
            raise InputError(f"{path}: no such file; run `dvc repro` to make it") from None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: not the predictions of a model ({error}); run `dvc repro` again") from None
