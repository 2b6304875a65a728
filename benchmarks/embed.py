"""Time the embedding of cells against upstream's, the same weights and cells side by side, and print a table.

    OMP_NUM_THREADS=1 python benchmarks/embed.py                                   # 12 layers of width 512, minutes
    OMP_NUM_THREADS=1 python benchmarks/embed.py --layers 2 --width 64 --heads 4 --cells 2000      # the small backbone

Random weights: the work is the same for any. Upstream is ``scgpt.tasks.embed_data``, which makes its tokens as it goes;
the time that takes is counted here too. The machine's rate is that of a matrix product as wide as the backbone; the
share of it counts the operations of matrix products on real tokens, not on padding, and nothing else.
"""

import argparse
import logging
import statistics
import tempfile
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from unittest.mock import patch

import numpy as np
import torch
from accelerate import Accelerator
from anndata import AnnData
from machine import cells_like_norman, finetune_config, has_bfloat16, machine, matrix_rate, operations
from timing import in_turn, rates, short

from reverse_perturbation.config import load_params
from reverse_perturbation.data.screen.mask import depths
from reverse_perturbation.data.screen.normalize import log1p_cp10k
from reverse_perturbation.models.embed import embed_cells
from reverse_perturbation.models.encoder.tokens import Tokens
from reverse_perturbation.models.finetune.network.classifier import EncoderClassifier
from reverse_perturbation.models.scgpt.encoder import tokenize as tokenize_module
from reverse_perturbation.models.scgpt.encoder.backbone import ScgptBackbone
from reverse_perturbation.models.scgpt.encoder.checkpoint import ScgptCheckpoint, load_checkpoint, save_checkpoint
from reverse_perturbation.models.scgpt.encoder.tokenize import tokenize
from reverse_perturbation.models.scgpt.pretrain import small_architecture, small_vocabulary
from reverse_perturbation.report.markdown import markdown

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from scgpt.tasks import embed_data

UPSTREAM = "scgpt.tasks.embed_data"
DTYPES = {"this project, float32": torch.float32, "this project, bfloat16": torch.bfloat16}
MOST = 7  # operations that are named
PARAMS = load_params()
FROZEN = finetune_config(adaptation={"mode": "frozen"}, head={"readout": ["cls"]})


def write_checkpoint(folder: str, genes: np.ndarray, layers: int, width: int, heads: int) -> ScgptCheckpoint:
    """Write a backbone of random weights in the official layout, and load it."""
    sizes = {"layers": layers, "width": width, "heads": heads}
    architecture = small_architecture(PARAMS.pretrain.model_copy(update=sizes), "binned")
    vocabulary = small_vocabulary(genes)
    torch.manual_seed(0)
    save_checkpoint(folder, ScgptBackbone(architecture, vocabulary), vocabulary, architecture)
    return load_checkpoint(folder)


def tokens_of(cells: AnnData, checkpoint: ScgptCheckpoint) -> Tokens:
    """Bin as upstream does; every gene has a token."""
    return tokenize(
        cells.layers["counts"],
        depths(cells),
        token_ids=np.array([checkpoint.vocabulary[gene] for gene in cells.var_names]),
        cell_ids=cells.obs_names.to_numpy(dtype=object),
        config=PARAMS.scgpt.model_copy(update={"value_input": "binned_random"}),
        n_bins=checkpoint.architecture.n_bins,
        vocabulary=checkpoint.vocabulary,
        pad_value=checkpoint.architecture.pad_value,
    )


def ours(cells: AnnData, checkpoint: ScgptCheckpoint, dtype: torch.dtype = torch.float32) -> np.ndarray:
    """Embed with this project's code; embeddings get length 1, as upstream's have."""
    model = EncoderClassifier(checkpoint.backbone, torch.arange(cells.n_vars), 2, FROZEN)
    names = cells.obs_names.to_numpy(dtype=object)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        found = embed_cells(model, tokens_of(cells, checkpoint), names, ["a", "b"], Accelerator(cpu=True)).embedding
    assert found is not None
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def theirs(cells: AnnData, folder: str) -> np.ndarray:
    """Embed with upstream's code, given what this project bins: log1p of counts per ten thousand."""
    expression = AnnData(log1p_cp10k(cells.layers["counts"], depths(cells)), var={"gene": list(cells.var_names)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = embed_data(expression, folder, gene_col="gene", device="cpu", use_fast_transformer=False)
    return found.obsm["X_scGPT"]


def where(call: Callable[[], object]) -> list[dict[str, object]]:
    """Return the operations that most of a call's time goes to."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        call()
    own = {event.key: event.self_cpu_time_total for event in profile.key_averages()}
    most = sorted(own, key=own.__getitem__, reverse=True)[:MOST]
    return [{"operation": f"`{name}`", "share": own[name] / sum(own.values())} for name in most]


def main() -> None:
    """Simulate, embed, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=64)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    logging.getLogger("scGPT").setLevel(logging.WARNING)
    cells = cells_like_norman(args.cells)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as patches:
        patches.enter_context(patch("scgpt.tasks.cell_emb.tqdm", lambda batches, **_: batches))
        # Both draw a bin for tied values; with these numbers both draw the highest.
        patches.enter_context(patch("numpy.random.rand", np.zeros))
        patches.enter_context(patch.object(tokenize_module, "_draws", lambda _, lengths: np.zeros(lengths.sum())))
        checkpoint = write_checkpoint(
            folder, cells.var_names.to_numpy(dtype=object), args.layers, args.width, args.heads
        )
        calls: dict[str, Callable[[], np.ndarray]] = {UPSTREAM: partial(theirs, cells, folder)}
        for name, dtype in DTYPES.items():
            if dtype == torch.float32 or has_bfloat16():
                calls[name] = partial(ours, cells, checkpoint, dtype)
        lengths = tokens_of(cells, checkpoint).lengths
        print(
            f"{machine()}\n\n{args.cells:,} simulated cells of {lengths.mean():.0f} genes ({lengths.min()} to ", end=""
        )
        print(f"{lengths.max()}), {args.layers} layers of width {args.width}; cells a second\n")
        seconds, found = in_turn(calls, args.repeats)
        spent = {name: where(call) for name, call in calls.items() if name in DTYPES}
    work = operations(lengths, checkpoint.architecture)
    rows = []
    for name, each in seconds.items():
        rate = matrix_rate(DTYPES.get(name, torch.float32), args.width)
        rows.append(
            {"way": name}
            | rates(args.cells, each)
            | {"over upstream": statistics.median(seconds[UPSTREAM]) / statistics.median(each)}
            | {"GFLOP a second": short(work / statistics.median(each) / 1e9), "machine's": short(rate / 1e9)}
            | {"share": work / statistics.median(each) / rate}
            | {"largest difference": f"{np.abs(found[name] - found[UPSTREAM]).max():.1e}"}
            | {"smallest cosine": f"{(found[name] * found[UPSTREAM]).sum(axis=1).min():.5f}"}
        )
    print(markdown(rows, decimals=2))
    for name, operations_of in spent.items():
        print(f"\nWhere the time goes, {name}:\n\n{markdown(operations_of, decimals=2)}")
    if not has_bfloat16():
        print("\nThis CPU does not multiply bfloat16 matrices in hardware.")


if __name__ == "__main__":
    main()
