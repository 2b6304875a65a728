"""Frozen work done once: what the untrained part of the model makes of each cell, kept on disk.

In mode ``head`` that is all the backbone does, in ``last_n`` the layers below the trained ones. It is the same in every
epoch, in the refit and under every training seed.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from reverse_perturbation.models.scgpt.classifier import ScgptClassifier
from reverse_perturbation.models.scgpt.tokens import Tokens
from reverse_perturbation.storage import write_atomically, write_json

BATCH = 256
GIB = 2**30


@dataclass(frozen=True)
class CachedTokens:
    """Tokens of many cells and, beside them, what the frozen part of the model makes of each cell.

    Attributes
    ----------
    tokens
        Of the cells.
    states
        Memory-mapped float16 or float32 [n_rows, width], cells end to end, without padding: a row for ``<cls>`` and for
        each gene, or one row a cell.
    offsets
        int64 [n_cells + 1]: cell i has rows ``offsets[i]`` to ``offsets[i + 1]``.
    per_token
        Whether a cell has a row for each of its tokens.
    """

    tokens: Tokens
    states: np.ndarray
    offsets: np.ndarray
    per_token: bool

    @property
    def lengths(self) -> np.ndarray:
        """int64 [n_cells]: number of genes of each cell."""
        return self.tokens.lengths

    def batch(self, rows: np.ndarray) -> tuple[Tensor, ...]:
        """Return what ``tokens.batch`` does, then the states, float32 [len(rows), longest + 1 or nothing, width].

        Only these cells' part of the file is read.
        """
        given = self.tokens.batch(rows)
        if not self.per_token:
            return *given, torch.from_numpy(self.states[rows].astype(np.float32))
        states = np.zeros((len(rows), given[0].shape[1], self.states.shape[1]), dtype=np.float32)
        for i, row in enumerate(rows):
            own = self.states[self.offsets[row] : self.offsets[row + 1]]
            states[i, : len(own)] = own
        return *given, torch.from_numpy(states)


def cached(
    model: ScgptClassifier,
    tokens: Tokens,
    *,
    folder: str | Path,
    checkpoint_sha256: str,
    device: torch.device,
) -> Tokens | CachedTokens:
    """Return the cells with the model's frozen work beside them, from disk or computed now.

    Parameters
    ----------
    model
        Says what of it is frozen; where nothing is, the tokens are returned as they are, and also where
        new cells are drawn in each epoch or the file would be larger than ``finetune.cache.limit_gb``.
    tokens
        Of all cells.
    folder
        Where caches are kept, each under a key made of the checkpoint, the tokens (and so data, mask and value input),
        the frozen part and the precision.
    checkpoint_sha256
        Of the checkpoint the model started from.
    device
        Where to compute.
    """
    if model.frozen_layers == 0 or model.head is None:  # without a head each cell is asked about once
        return tokens
    config = model.config.cache
    if model.config.draws_cells:
        print(
            "cache: off, finetune.mixing, thinning or token_dropout draws new cells in each epoch; without them frozen "
            "work is kept",
            flush=True,
        )
        return tokens
    offsets = np.arange(len(tokens.lengths) + 1)
    if model.frozen_states_per_token:
        offsets = np.concatenate([[0], np.cumsum(tokens.lengths + 1)])
    shape = (int(offsets[-1]), model.frozen_width)
    about = {
        "checkpoint_sha256": checkpoint_sha256,
        "tokens_sha256": _digest(tokens),
        "frozen_layers": model.frozen_layers,
        "states": "tokens" if model.frozen_states_per_token else list(model.readout.parts),
        "dtype": config.dtype,
        "shape": list(shape),
    }
    path = Path(folder) / hashlib.sha256(json.dumps(about).encode()).hexdigest()[:24]
    states = _read(path, config.dtype, shape)
    if states is None:
        size = shape[0] * shape[1] * np.dtype(config.dtype).itemsize / GIB
        what = f"the frozen part's states of {len(tokens.lengths):,} cells take {size:.3g} GiB in {config.dtype}"
        if size > config.limit_gb:
            print(
                f"cache: {what}, more than finetune.cache.limit_gb={config.limit_gb:g}: computed anew in every epoch; "
                "raise the limit to keep them",
                flush=True,
            )
            return tokens
        print(f"cache: {what} -> {path}", flush=True)
        _write(path, model, tokens, offsets, shape, about, device)
        states = _read(path, config.dtype, shape)
        assert states is not None
    return CachedTokens(tokens, states, offsets, model.frozen_states_per_token)


def _read(path: Path, dtype: str, shape: tuple[int, int]) -> np.ndarray | None:
    try:
        states: np.ndarray = np.load(path / "states.npy", mmap_mode="r")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        print(f"cache: {path} is damaged ({error}) and made again", flush=True)
        return None
    return states if states.shape == shape and states.dtype == dtype else None


def _write(
    path: Path,
    model: ScgptClassifier,
    tokens: Tokens,
    offsets: np.ndarray,
    shape: tuple[int, int],
    about: dict[str, Any],
    device: torch.device,
) -> None:
    with write_atomically(path) as temporary:
        temporary.mkdir()
        write_json(temporary / "about.json", about)
        file = np.lib.format.open_memmap(temporary / "states.npy", mode="w+", dtype=about["dtype"], shape=shape)
        for row, states in _frozen_states(model, tokens, device):
            file[offsets[row] : offsets[row + 1]] = states
        file.flush()


def _frozen_states(model: ScgptClassifier, tokens: Tokens, device: torch.device) -> Iterator[tuple[int, np.ndarray]]:
    model.to(device).eval()
    by_length = np.argsort(tokens.lengths, kind="stable")
    with tqdm(total=len(by_length), desc="cache", unit="cell") as progress, torch.inference_mode():
        for start in range(0, len(by_length), BATCH):
            rows = by_length[start : start + BATCH]
            states = model.frozen(*(t.to(device) for t in tokens.batch(rows)[:3])).float().cpu().numpy()
            for row, own in zip(rows, states, strict=True):
                yield int(row), own[: tokens.lengths[row] + 1] if model.frozen_states_per_token else own[None]
            progress.update(len(rows))


def _digest(tokens: Tokens) -> str:
    digest = hashlib.sha256(f"{tokens.cls_id} {tokens.pad_id} {tokens.pad_value}".encode())
    for array in (tokens.ids, tokens.values, tokens.offsets):
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()
