"""Output of frozen layers, computed once and kept on disk.

Where the lower layers of the backbone, or all of it, are not trained, their output is the same in every epoch, fit,
training seed and stage. It is stored under a hash of everything it depends on.
"""

import hashlib
import inspect
import json
import math
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from reverse_perturbation.errors import InputError
from reverse_perturbation.models.encoder.batches import inference_batches
from reverse_perturbation.models.encoder.tokens import Batch, Tokens, TokenSource
from reverse_perturbation.models.finetune.network import heads
from reverse_perturbation.models.finetune.network.classifier import EncoderClassifier
from reverse_perturbation.storage import read_json, sha256, write_atomically, write_json

GIB = 2**30
ARRAY, ABOUT = "array.npy", "cache.json"


@dataclass(frozen=True)
class CachedTokens:
    """Tokens of many cells and the output of ``EncoderClassifier.frozen`` for them.

    Attributes
    ----------
    tokens
        The cells.
    array
        float16 or float32, memory-mapped: the states [n_cells + n_tokens, width] of each cell's ``<cls>`` and genes,
        end to end without padding, or the readouts [n_cells, n].
    per_token
        Whether it is the states.
    """

    tokens: Tokens
    array: np.ndarray
    per_token: bool

    @property
    def lengths(self) -> np.ndarray:
        """int64 [n_cells]: number of genes of each cell."""
        return self.tokens.lengths

    def batch(self, rows: np.ndarray) -> Batch:
        """Return some cells, in the order given; only their part of the array is read."""
        batch = self.tokens.batch(rows)
        if not self.per_token:
            return replace(batch, frozen=_gather(self.array, rows))
        states = torch.zeros(*batch.ids.shape, self.array.shape[1])
        states[~batch.padding] = _gather(self.array, _places(self.tokens, rows))
        return replace(batch, frozen=states)


def cached(
    model: EncoderClassifier, tokens: Tokens, *, folder: str | Path, checkpoint_sha256: str, device: torch.device
) -> TokenSource:
    """Join to the tokens the output of a model's frozen part, read from disk or computed now.

    Parameters
    ----------
    model
        Any fit; its trained weights do not matter.
    tokens
        All cells that will be needed.
    folder
        Of the caches. Each is a folder of its own there and can be deleted at any time.
    checkpoint_sha256
        Of the checkpoint the model was made from.
    device
        Where to compute.

    Returns
    -------
    TokenSource
        The tokens themselves where nothing would be computed twice, or where the cache is off.

    Raises
    ------
    InputError
        If a state is too large for float16.
    """
    if model.head is None or model.frozen_layers == 0:
        return tokens
    if model.config.augmentation.resamples:
        print(
            "cache: off, finetune.augmentation resamples the training cells in each epoch; without it the output of "
            "frozen layers is kept",
            flush=True,
        )
        return tokens
    settings = model.config.cache
    about = _about(model, tokens, checkpoint_sha256)
    size = math.prod(about["shape"]) * np.dtype(settings.dtype).itemsize
    kind = f"states below layer {model.frozen_layers}" if model.frozen_states_per_token else "readouts"
    what = f"{kind} of {len(tokens.lengths):,} cells, {size / GIB:.3g} GiB as {settings.dtype}"
    if size > settings.limit_gb * GIB:
        print(
            f"cache: off, {what}, are above finetune.cache.limit_gb ({settings.limit_gb:g}) and computed each time; "
            f"to compute them once set it to {math.ceil(100 * size / GIB) / 100:g}",
            flush=True,
        )
        return tokens
    target = Path(folder) / hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]
    if (array := _read(target, about)) is not None:
        print(f"cache: found {what}, in {target}", flush=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        if size > (free := shutil.disk_usage(target.parent).free):
            # Writing a memory-mapped file to a full disk kills the process with a signal.
            print(f"cache: off, {what}, and {target.parent} has {free / GIB:.3g} GiB left; make room", flush=True)
            return tokens
        print(f"cache: keeping {what}, in {target}", flush=True)
        _write(target, about, model, tokens, device)
        array = np.load(target / ARRAY, mmap_mode="r")
    return CachedTokens(tokens, array, model.frozen_states_per_token)


def _about(model: EncoderClassifier, tokens: Tokens, checkpoint_sha256: str) -> dict[str, Any]:
    """Return everything the stored array depends on; the tokens stand for cells, mask and value input."""
    digest = hashlib.sha256(repr((tokens.cls_id, tokens.pad_value, len(tokens.lengths), len(tokens.ids))).encode())
    for part in (tokens.ids, tokens.values, tokens.offsets):
        digest.update(np.ascontiguousarray(part).data)
    code = [sha256(inspect.getfile(part)) for part in (type(model.backbone), type(model.backbone.layers[0]), heads)]
    n_rows = len(tokens.lengths) + (len(tokens.ids) if model.frozen_states_per_token else 0)
    return {
        "checkpoint_sha256": checkpoint_sha256,
        "tokens_sha256": digest.hexdigest(),
        "code_sha256": code,
        "frozen_layers": model.frozen_layers,
        "readout": None if model.frozen_states_per_token else list(model.readout.parts),
        "dtype": model.config.cache.dtype,
        "shape": [n_rows, model.frozen_width],
    }


def _read(target: Path, about: dict[str, Any]) -> np.ndarray | None:
    """Open a cache; None where there is none or it is damaged."""
    if not target.exists():
        return None
    try:
        if read_json(target / ABOUT) == about | {"array_sha256": sha256(target / ARRAY)}:
            return np.load(target / ARRAY, mmap_mode="r")
    except (OSError, ValueError):
        pass
    print(f"cache: {target} is damaged and is made again", flush=True)
    return None


def _write(target: Path, about: dict[str, Any], model: EncoderClassifier, tokens: Tokens, device: torch.device) -> None:
    model.to(device).eval()
    progress = tqdm(total=len(tokens.lengths), desc="cache", unit=" cells")
    with progress, write_atomically(target) as temporary, torch.inference_mode():
        temporary.mkdir()
        array = np.lib.format.open_memmap(temporary / ARRAY, "w+", about["dtype"], tuple(about["shape"]))
        _reserve(temporary / ARRAY)
        for rows in inference_batches(np.arange(len(tokens.lengths)), tokens.lengths, model.backbone.width, device):
            batch = tokens.batch(rows)
            output = model.frozen(batch.to(device)).cpu()
            if (output.abs() > np.finfo(array.dtype).max).any():
                raise InputError(f"finetune.cache.dtype: a state is too large for {array.dtype}; set float32")
            if model.frozen_states_per_token:
                array[_places(tokens, rows)] = output[~batch.padding].numpy()
            else:
                array[rows] = output.numpy()
            progress.update(len(rows))
        array.flush()
        write_json(temporary / ABOUT, about | {"array_sha256": sha256(temporary / ARRAY)})


def _reserve(path: Path) -> None:
    """Take the disk space of a sparse file: where it is lacking that is an error now, not a signal at some write."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _gather(array: np.ndarray, places: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(array[places], dtype=np.float32))


def _places(tokens: Tokens, rows: np.ndarray) -> np.ndarray:
    """Return the rows of some cells' states in the array."""
    lengths = tokens.lengths[rows] + 1
    ends = np.cumsum(lengths)
    return np.repeat(tokens.offsets[rows] + rows - (ends - lengths), lengths) + np.arange(ends[-1])
