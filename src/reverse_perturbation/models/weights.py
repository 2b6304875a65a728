"""Fitted arrays as safetensors beside a JSON that says what they are: saved and read without pickle."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from reverse_perturbation.errors import InputError
from reverse_perturbation.storage import read_json, write_atomically, write_json

Model = TypeVar("Model")


def save_weights(folder: str | Path, weights: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """Write ``weights.safetensors`` and ``config.json``, both or neither."""
    with write_atomically(folder) as temporary:
        temporary.mkdir()
        arrays = {name: np.ascontiguousarray(array) for name, array in weights.items()}
        save_file(arrays, temporary / "weights.safetensors")
        write_json(temporary / "config.json", dict(about))


def load_weights(
    folder: str | Path, build: Callable[[dict[str, np.ndarray], dict[str, Any]], Model], what: str
) -> Model:
    """Build a model from what :func:`save_weights` wrote.

    Parameters
    ----------
    folder
        Of the model.
    build
        Takes the arrays and the JSON; a ValueError, KeyError or TypeError of it says that the folder is broken.
    what
        Of which model, for the error: its DVC stage.

    Raises
    ------
    InputError
        If a file is missing or broken.
    """
    folder = Path(folder)
    try:
        return build(load_file(folder / "weights.safetensors"), read_json(folder / "config.json"))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(f"{folder}: not a saved {what} ({error}); run `dvc repro {what}` again") from None
