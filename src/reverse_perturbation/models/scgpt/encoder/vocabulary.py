"""scGPT's vocabularies: the official one, read without importing scgpt (which takes seconds), and a checkpoint's."""

import json
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from reverse_perturbation.config import Params
from reverse_perturbation.errors import InputError

WEIGHTS = ("best_model.pt", "model.safetensors", "model.safetensors.index.json")
SPECIAL_TOKENS = ("<pad>", "<cls>", "<eoc>")
JSON_LIMIT = 2**26  # bytes; whole-human's vocab.json has 1.3 million
LFS_POINTER = b"version https://git-lfs"


@cache
def default_vocabulary() -> dict[str, int]:
    """Return the 60,697 tokens of the official checkpoints: the scgpt wheel's census genes and three special ones."""
    spec = find_spec("scgpt")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "tokenizer" / "default_census_vocab.json"
    tokens: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))
    return tokens | {token: len(tokens) + i for i, token in enumerate(SPECIAL_TOKENS)}


def read_vocabulary(params: Params) -> dict[str, int]:
    """Return token -> id of ``scgpt.checkpoint``, or the official vocabulary where no checkpoint is given.

    A checkpoint is loaded whole for this: the stage runs before any fit, so that a broken one is found in seconds.

    Raises
    ------
    InputError
        Naming the file of the checkpoint and what is wrong with it.
    """
    if (folder := params.scgpt.given) is None:
        return default_vocabulary()
    # By name, as it imports this module, and torch, which takes seconds.
    vocabulary: dict[str, int] = import_module(f"{__package__}.checkpoint").load_checkpoint(folder).vocabulary
    return vocabulary


def read_vocabulary_file(folder: str | Path, pad_token: str = "<pad>") -> dict[str, int]:
    """Read ``vocab.json`` of a checkpoint's folder: token -> id.

    Raises
    ------
    InputError
        If it is missing or broken, or lacks a special token.
    """
    weights_file(folder)  # a folder that lacks any of its files is refused before there is work to lose
    path = Path(folder) / "vocab.json"
    vocabulary = read_json_of(path)
    if not isinstance(vocabulary, dict) or not all(type(value) is int for value in vocabulary.values()):
        raise InputError(f"{path}: expected an object of token -> id; copy it again")
    for token in (pad_token, "<cls>"):
        if token not in vocabulary:
            raise InputError(
                f"{path}: the special token {token!r} is missing; take vocab.json from the checkpoint's source"
            )
    if set(vocabulary.values()) != set(range(len(vocabulary))):
        last = len(vocabulary) - 1
        raise InputError(f"{path}: the {len(vocabulary):,} ids are not 0 to {last:,}, each once; copy it again")
    return vocabulary


def weights_file(folder: str | Path) -> Path:
    """Return the file of weights in a checkpoint's folder, which must hold all that belongs to a checkpoint.

    Raises
    ------
    InputError
        If there is no such folder, or one of its files is missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder; set scgpt.checkpoint to a folder with args.json, vocab.json and weights"
        )
    for name in ("args.json", "vocab.json"):
        if not (folder / name).exists():
            raise InputError(f"{folder}: {name} is missing; copy it from the checkpoint's source")
    for name in WEIGHTS:
        if (folder / name).exists():
            return folder / name
    raise InputError(f"{folder}: {' or '.join(WEIGHTS)} is missing; copy it from the checkpoint's source")


def read_json_of(path: Path) -> Any:
    """Read a JSON file of a checkpoint's folder.

    Raises
    ------
    InputError
        If it is not JSON, or larger or deeper than any of a checkpoint.
    """
    check_no_pointer(path)
    if (size := path.stat().st_size) > JSON_LIMIT:
        raise InputError(f"{path}: {size:,} bytes, where a checkpoint has about a million; copy it again")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error).partition(";")[0]
        raise InputError(f"{path}: not JSON of a checkpoint ({reason}); copy it again") from None


def check_no_pointer(path: Path) -> None:
    """Refuse what a clone without git LFS leaves in place of a file.

    Raises
    ------
    InputError
        If it is such a pointer, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(LFS_POINTER))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; check scgpt.checkpoint") from None
    if start == LFS_POINTER:
        raise InputError(f"{path}: a git LFS pointer, not the file itself; run `git lfs pull` where it was cloned")
