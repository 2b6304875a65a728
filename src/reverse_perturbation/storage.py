"""Files written whole or not at all, the arrays of fitted models, and the hashes of files."""

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from errno import ENOSPC
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from reverse_perturbation.errors import InputError

Model = TypeVar("Model")


@contextmanager
def write_atomically(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` and move what was written there into place.

    Works for a file and for a folder. When the block raises, nothing is left behind and what stood at
    ``path`` before is untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        temporary = Path(folder) / path.name
        yield temporary
        if temporary.is_dir() and path.is_dir():
            shutil.rmtree(path)
        os.replace(temporary, path)


def check_space(path: str | Path, size: int) -> None:
    """Raise the OSError of a full disk where a file of ``size`` bytes has no room at ``path``."""
    folder = Path(path).parent
    folder.mkdir(parents=True, exist_ok=True)
    if size > shutil.disk_usage(folder).free:
        raise OSError(ENOSPC, os.strerror(ENOSPC), str(path))


def keep_only(folders: Iterable[str | Path]) -> None:
    """Remove the folders beside some folders, such as those of a model that params.yaml no longer lists.

    DVC leaves them, and a stage that depends on all of what is there would not find the same elsewhere.
    """
    kept = {Path(folder) for folder in folders}
    for parent in {folder.parent for folder in kept}:
        for other in parent.glob("*/"):
            if other not in kept and not other.name.startswith("."):
                shutil.rmtree(other)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically, as UTF-8 with Unix line ends."""
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON atomically, indented, keys in the order given; NaN is refused."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def for_spreadsheets(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table for a CSV file that people open; a text that a spreadsheet would run as a formula gets a '."""
    formulas = table.select_dtypes(["object", "string", "category"]).columns
    return table.assign(**{name: table[name].map(_no_formula) for name in formulas})


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    InputError
        If it is damaged.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"), parse_float=_finite, parse_constant=_finite)
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); run what makes it again, `dvc repro` for results") from None


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is no finite number")
    return number


def sha256(path: str | Path) -> str:
    """Return the hexadecimal sha256 of a file, or of a folder's relative names and contents."""
    path = Path(path)
    digest = hashlib.sha256()
    if path.is_dir():
        for member in sorted(p for p in path.rglob("*") if p.is_file()):
            digest.update(f"{member.relative_to(path).as_posix()}\0{sha256(member)}\n".encode())
        return digest.hexdigest()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def save_weights(folder: str | Path, weights: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """Write ``weights.safetensors`` and ``config.json``, both or neither."""
    with write_atomically(folder) as temporary:
        temporary.mkdir()
        arrays = {name: np.ascontiguousarray(array) for name, array in weights.items()}
        save_file(arrays, temporary / "weights.safetensors")
        write_json(temporary / "config.json", dict(about))


def load_weights(
    folder: str | Path, build: Callable[[dict[str, np.ndarray], dict[str, Any]], Model], stage: str
) -> Model:
    """Build a model from what :func:`save_weights` wrote.

    Parameters
    ----------
    folder
        Of the model.
    build
        Takes the arrays and the JSON; a ValueError, KeyError or TypeError of it says that the folder is broken.
    stage
        DVC stage that makes the folder, for the error.

    Raises
    ------
    InputError
        If a file is missing or broken.
    """
    folder = Path(folder)
    try:
        return build(load_file(folder / "weights.safetensors"), read_json(folder / "config.json"))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(f"{folder}: not saved weights ({error}); run `dvc repro {stage}` again") from None


def source_sha256(folders: Iterable[str | Path]) -> str:
    """Return the hash of the Python files in some folders; their names and order in the folder count, caches do not."""
    digest = hashlib.sha256()
    for folder in map(Path, folders):
        for file in sorted(folder.rglob("*.py")):
            digest.update(f"{folder.name}/{file.relative_to(folder).as_posix()}\0{sha256(file)}\n".encode())
    return digest.hexdigest()
