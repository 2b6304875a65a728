"""scGPT's vocabularies: the official one, read without importing scgpt (which takes seconds), and a checkpoint's."""

import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from reverse_perturbation.config import Params
from reverse_perturbation.errors import InputError

WEIGHTS = ("best_model.pt", "model.safetensors")
SPECIAL_TOKENS = ("<pad>", "<cls>", "<eoc>")


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
    """Return token -> id of ``scgpt.checkpoint``, or the official vocabulary where no checkpoint is given."""
    folder = params.scgpt.given
    return default_vocabulary() if folder is None else read_vocabulary_file(folder)


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
        If it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not JSON ({error}); copy it again") from None
