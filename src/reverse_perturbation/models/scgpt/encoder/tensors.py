"""Read the tensors of a weights file without running code in it, in about as much memory as the file is large."""

import re
import zipfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from reverse_perturbation.errors import InputError
from reverse_perturbation.models.scgpt.encoder.vocabulary import check_no_pointer, read_json_of


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a plain state dict: ``.pt``, ``.safetensors`` or the ``.json`` index of sharded safetensors.

    A ``.pt`` file is read with ``weights_only=True`` and never otherwise. A state dict inside another dict
    (``{"model_state_dict": ...}``) is refused: a loader should not guess which of several is meant. torch's own words
    are not passed on, as they advise to read the file without that protection.

    Raises
    ------
    InputError
        If the file is damaged, compressed or holds anything but tensors, or tensors that take more memory than the
        file: such as repeat one number, or share theirs.
    """
    files = _shards(path) if path.suffix == ".json" else [path]
    state: dict[str, Tensor] = {}
    for file in files:
        check_no_pointer(file)
        tensors = _read(file)
        if twice := sorted(tensors.keys() & state.keys()):
            raise InputError(f"{file}: {twice[0]} stands in another shard too; copy all shards again")
        state |= tensors
    size, limit = sum(tensor.nbytes for tensor in state.values()), sum(file.stat().st_size for file in files)
    if size > limit:
        raise InputError(
            f"{path}: holds {size:,} bytes of tensors in a file of {limit:,}: some share or repeat their numbers; "
            "save tensor.clone() of each"
        )
    return state


def _read(path: Path) -> dict[str, Tensor]:
    refused = f"{path}: cannot be read as a plain state dict, "
    advice = "; copy it again, or save model.state_dict() alone"
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
                    unpacked = sum(entry.file_size for entry in archive.infolist())
                if unpacked > path.stat().st_size:  # torch.save does not compress
                    raise InputError(f"{refused}it unpacks to {unpacked:,} bytes{advice}")
            state = torch.load(path, weights_only=True, map_location="cpu")
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except Exception:  # a damaged file can make the unpickler raise anything
        raise InputError(f"{refused}it is damaged or holds other Python objects{advice}") from None
    if not isinstance(state, dict) or not state or not all(_is_entry(*entry) for entry in state.items()):
        raise InputError(
            f"{path}: holds {type(state).__name__} that is not a state dict; save model.state_dict() alone"
        )
    if empty := [name for name, tensor in state.items() if tensor.is_meta]:
        raise InputError(
            f"{path}: {empty[0]} has a shape but no numbers (device meta); save the model when it is loaded"
        )
    return state


def _is_entry(name: object, tensor: object) -> bool:
    return isinstance(name, str) and isinstance(tensor, Tensor) and tensor.layout == torch.strided


def _shards(index: Path) -> list[Path]:
    """Return the files that an index names, each beside it."""
    content = read_json_of(index)
    places = content.get("weight_map") if isinstance(content, dict) else None
    names = set(places.values()) if isinstance(places, dict) and all(map(_is_text, places.values())) else set()
    if not names or not all(re.fullmatch(r"[\w.-]+\.safetensors", name) for name in names):
        raise InputError(f"{index}: weight_map is no object of tensor -> file of this folder; copy it again")
    files = [index.parent / name for name in sorted(names)]
    for file in files:
        if not file.is_file():
            raise InputError(f"{file}: {index.name} names it, but it is missing; copy it from the checkpoint's source")
    return files


def _is_text(value: object) -> bool:
    return isinstance(value, str)
