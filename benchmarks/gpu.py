"""Measure one NVIDIA GPU: embedding, fine-tuning, logistic regression, search, and the protocol at Norman's size.

    benchmarks/gpu.sh            # results/benchmarks/gpu.json and gpu.md, at most eight minutes
    benchmarks/gpu.sh --tiny     # everything on small sizes, on a CPU too: only to see that it runs

Simulated cells, random weights where none are trained. A section that fails is a line of the table and does not stop
the others; what is known is written after each.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from timing import in_turn, short, spread
from torch import nn

try:
    import scgpt.model  # noqa: F401
except ImportError:
    import scgpt_standin

    scgpt_standin.install()

from machine import finetune_config, operations

from reverse_perturbation.conditions import genes_of
from reverse_perturbation.config import load_params
from reverse_perturbation.data.screen.genes import map_genes
from reverse_perturbation.data.screen.mask import apply_mask
from reverse_perturbation.data.screen.masked_screen import CONTROL_PART, MaskedScreen
from reverse_perturbation.data.split import split_cells
from reverse_perturbation.gpu import gpu
from reverse_perturbation.metrics import registry
from reverse_perturbation.models.device import make_accelerator
from reverse_perturbation.models.encoder.tokens import Tokens, on_device
from reverse_perturbation.models.finetune.inference.predict import predict_in_order
from reverse_perturbation.models.finetune.network.classifier import EncoderClassifier
from reverse_perturbation.models.finetune.training.augmentation import resampler
from reverse_perturbation.models.finetune.training.losses import Objective
from reverse_perturbation.models.finetune.training.train import TrainingData, fit, make_optimizer
from reverse_perturbation.models.linear import softmax
from reverse_perturbation.models.linear.features import features
from reverse_perturbation.models.linear.softmax import fit_softmax
from reverse_perturbation.models.scgpt.encoder import layers
from reverse_perturbation.models.scgpt.encoder.backbone import ScgptBackbone
from reverse_perturbation.models.scgpt.encoder.checkpoint import ScgptCheckpoint
from reverse_perturbation.models.scgpt.encoder.layers import EncoderLayer
from reverse_perturbation.models.scgpt.pretrain import pretrain, small_architecture, small_vocabulary
from reverse_perturbation.prepare.simulate import simulate
from reverse_perturbation.report.markdown import markdown
from reverse_perturbation.retrieval import library
from reverse_perturbation.retrieval.library import LibraryRanker
from reverse_perturbation.sections import Simulated

PARAMS = load_params()
DEVICE = gpu() or torch.device("cpu")
GPU = DEVICE.type == "cuda"
GIB = 2**30
C = 0.01
PATH = (0.003, 0.01, 0.03, 0.1)  # values of C, each fit started from the one before
Row = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """How large everything is."""

    cells: int
    genes: int
    conditions: int
    layers: int
    width: int
    heads: int
    embedded: int
    steps: tuple[int, ...]
    batches: tuple[int, int]
    library: tuple[int, int]
    matrix: int
    copied: int


FULL = Size(91_205, 5045, 282, 12, 512, 8, 16_384, (64, 256), (32, 96), (67_152, 16_651), 8192, 2**32)
TINY = Size(3000, 300, 20, 2, 32, 4, 200, (8,), (4, 8), (500, 200), 256, 2**20)


def seconds(call: Callable[[], object], repeats: int = 3) -> list[float]:
    """Time a call that may leave work behind on the GPU, after one to warm up."""

    def whole() -> None:
        call()
        if GPU:
            torch.cuda.synchronize()

    whole()
    return in_turn({"call": whole}, repeats)[0]["call"]


def timed(work: float, times: list[float]) -> Row:
    """Return columns: work a second, median and range."""
    found = [work / each for each in times]
    return {"a second": short(statistics.median(found)), "range": spread(found)}


@contextmanager
def peak() -> Iterator[Callable[[], float | None]]:
    """Give a function that returns the peak of the GPU's memory since then, GiB; None on a CPU."""
    if GPU:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    yield lambda: torch.cuda.max_memory_allocated() / GIB if GPU else None


def half() -> Any:
    """Compute in bfloat16 as ``precision: bfloat16`` does; a CPU without it would take minutes."""
    return torch.autocast(DEVICE.type, torch.bfloat16) if GPU else nullcontext()


class Norman:
    """A simulated screen of Norman's size, the specification's mask, labels and split."""

    def __init__(self, size: Size):
        self.size = size

    @cached_property
    def screen(self) -> MaskedScreen:
        """Every cell of the split, then the control cells."""
        config = Simulated(n_conditions=self.size.conditions, n_cells=self.size.cells, n_genes=self.size.genes, seed=0)
        table = pd.read_csv("data/norman_conditions.csv")
        # Gene names of our own: upstream's vocabulary comes with the package.
        targets = set().union(*map(genes_of, table["condition"]))
        names = sorted(targets) + [f"GENE{i}" for i in range(10_000)]
        vocabulary = {name: i for i, name in enumerate(names)}
        cells = simulate(table, config, names, {})
        split = split_cells(cells.obs, seed=42, label_space="legacy")
        masked = apply_mask(cells, "own")
        control = np.flatnonzero(cells.obs["control"].to_numpy(dtype=bool))
        rows = np.concatenate([cells.obs_names.get_indexer(split["cell"]), control])
        return MaskedScreen(
            cell_ids=cells.obs_names.to_numpy(dtype=object)[rows],
            conditions=np.append(split["condition"], np.full(len(control), "ctrl")).astype(object),
            parts=np.append(split["part"], np.full(len(control), CONTROL_PART)).astype(object),
            counts=masked.counts[rows],
            totals=masked.totals[rows],
            genes=cells.var_names.to_numpy(dtype=object),
            tokens=map_genes(cells.var_names, vocabulary, {})["token"].to_numpy(dtype=object),
        )

    @cached_property
    def split(self) -> MaskedScreen:
        """The cells of the split."""
        return self.screen.take(self.screen.parts != CONTROL_PART)

    def checkpoint(self, layers: int, width: int, heads: int) -> ScgptCheckpoint:
        """Return a backbone of random weights."""
        sizes = {"layers": layers, "width": width, "heads": heads}
        architecture = small_architecture(PARAMS.pretrain.model_copy(update=sizes), "log1p")
        vocabulary = small_vocabulary(self.screen.tokens)
        torch.manual_seed(0)
        return ScgptCheckpoint(ScgptBackbone(architecture, vocabulary).eval(), vocabulary, architecture, None)

    @cached_property
    def large(self) -> ScgptCheckpoint:
        """Return a backbone of the official size."""
        return self.checkpoint(self.size.layers, self.size.width, self.size.heads)

    def tokens(self, n_cells: int) -> Tokens:
        """Return the tokens of some cells for the large backbone."""
        some = self.split.take(np.random.default_rng(0).permutation(len(self.split.cell_ids))[:n_cells])
        return self.large.tokenizer(self.split, PARAMS)(some)


def card(norman: Norman) -> list[Row]:
    """Return the rates of the device: products of large matrices, of those of a layer, and copies."""
    size, rows = norman.size, []

    square = (size.matrix,) * 3
    layer = (8 * size.matrix, size.width, size.width)
    for name, shape, dtype in (
        (f"product of square matrices, {size.matrix}, bfloat16", square, torch.bfloat16),
        (f"product with a layer's weight, {size.width}, bfloat16", layer, torch.bfloat16),
        (f"product of square matrices, {size.matrix}, float32", square, torch.float32),
    ):
        rows.append({"what": name, "value": f"{short(matrix_rate(shape, dtype) / 1e12)} TFLOP/s"})
    source = torch.ones(size.copied // 4, device=DEVICE)
    target = torch.empty_like(source)
    rate = 2 * size.copied / statistics.median(seconds(lambda: target.copy_(source), 5))
    return [*rows, {"what": "copy, read and written", "value": f"{short(rate / 1e12)} TB/s"}]


def embed(norman: Norman) -> list[Row]:
    """Embed cells with the large backbone: cells end to end, padded, and by PyTorch's encoder as upstream calls it."""
    checkpoint = norman.large
    tokens = norman.tokens(norman.size.embedded)
    lengths = tokens.lengths
    config = finetune_config(adaptation={"mode": "frozen"}, head={"readout": ["cls"]})
    model = EncoderClassifier(checkpoint.backbone, checkpoint.token_ids(norman.split), 2, config).to(DEVICE)
    kept, rows = on_device(tokens, DEVICE), np.arange(len(lengths))
    reference = predict_in_order(model, tokens, rows[:256], DEVICE)[0]

    def ours(devices: frozenset[str], n_cells: int) -> np.ndarray:
        with patch.object(layers, "PACKED", devices), half():
            return predict_in_order(model, kept, rows[:n_cells], DEVICE)[0]

    def compiled(n_cells: int) -> np.ndarray:
        compile_layers(model)
        return ours(frozenset({DEVICE.type}), n_cells)

    theirs = as_upstream(model, kept, rows)
    ways: dict[str, tuple[Callable[[], np.ndarray], int]] = {
        "nn.TransformerEncoder, batches of 64 in order": (theirs, min(2048, len(rows))),
        "padded, cells of similar length": (partial(ours, frozenset()), len(rows)),
        "packed": (partial(ours, frozenset({DEVICE.type})), len(rows)),
    }
    if GPU:
        ways["packed, compiled"] = (compiled, len(rows))
    rate = matrix_rate((norman.size.matrix,) * 3, torch.bfloat16 if GPU else torch.float32)
    table = []
    for name, (call, n_cells) in ways.items():
        with peak() as most:
            times = seconds(partial(call, n_cells=n_cells))
            memory = most()
        work = operations(lengths[:n_cells], checkpoint.architecture)
        table.append(
            {"way": name, "cells": n_cells}
            | timed(n_cells, times)
            | {"share of the matrix rate": work / statistics.median(times) / rate, "peak, GiB": memory}
            | {"smallest cosine to float32": float(cosine(call(n_cells=min(256, n_cells))[:256], reference).min())}
        )
    return table


def as_upstream(model: EncoderClassifier, tokens: Any, rows: np.ndarray) -> Callable[..., np.ndarray]:
    """Return PyTorch's own encoder with a model's weights."""
    stack = model.backbone.layers
    first = stack[0]
    assert isinstance(first, EncoderLayer)
    width, heads, hidden = first.norm1.normalized_shape[0], first.self_attn.heads, first.linear1.out_features
    layer = nn.TransformerEncoderLayer(width, heads, hidden, 0.0, batch_first=True)
    encoder = nn.TransformerEncoder(layer, len(stack)).to(DEVICE).eval()
    state = stack.state_dict(prefix="layers.")
    encoder.load_state_dict({name.replace("self_attn.Wqkv.", "self_attn.in_proj_"): t for name, t in state.items()})

    @torch.inference_mode()
    def call(n_cells: int) -> np.ndarray:
        found = []
        with half():
            for start in range(0, n_cells, 64):
                batch = tokens.batch(rows[start : min(start + 64, n_cells)]).to(DEVICE)
                states = encoder(model.backbone.embed(batch), src_key_padding_mask=batch.padding)
                found.append(states[:, 0].float().cpu().numpy())
        return np.concatenate(found)

    return call


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cosine of each pair of rows."""
    result: np.ndarray = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return result


def matrix_rate(shape: tuple[int, int, int], dtype: torch.dtype) -> float:
    """Return FLOP/s of a product of [m, k] and [k, n]."""
    m, k, n = shape
    a, b = torch.randn(m, k, device=DEVICE).to(dtype), torch.randn(k, n, device=DEVICE).to(dtype)
    with torch.inference_mode():
        return 10 * 2 * m * k * n / statistics.median(seconds(lambda: [torch.mm(a, b) for _ in range(10)], 5))


def compile_layers(model: EncoderClassifier) -> None:
    """Compile each layer of the backbone, for batches of any length."""
    for layer in model.backbone.layers:
        layer.compile(dynamic=True)


MODES: dict[str, dict[str, object]] = {
    "full": {"mode": "full"},
    "last 2 layers": {"mode": "last_n", "last_layers": 2},
    "LoRA, rank 8": {"mode": "lora"},
}


def step_of(norman: Norman, mode: str, batch_size: int, *, compiled: bool = False) -> Callable[[], None]:
    """Return one step of fine-tuning the large backbone on cells of one batch."""
    checkpoint = norman.large
    config = finetune_config(adaptation=MODES[mode], augmentation={"mixing": 1})
    n_conditions = len(norman.split.classes())
    torch.manual_seed(0)
    model = EncoderClassifier(checkpoint.backbone, checkpoint.token_ids(norman.split), n_conditions, config)
    model.to(DEVICE).train()
    if compiled:
        compile_layers(model)
    optimizer, objective = make_optimizer(model), Objective(config.loss, norman.split.classes(), None)
    batch = norman.tokens(batch_size).batch(np.arange(batch_size)).to(DEVICE)
    targets = torch.arange(batch_size, device=DEVICE) % n_conditions

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with half():
            loss = objective(model(batch), targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip_norm)
        optimizer.step()

    return step


def finetune(norman: Norman) -> list[Row]:
    """Time a step of the large backbone's fine-tuning on one batch; frozen layers are computed in each step."""
    table = []
    ways = [(mode, n_cells, False) for mode in MODES for n_cells in norman.size.steps]
    for mode, n_cells, compiled in ways + ([("full", norman.size.steps[0], True)] if GPU else []):
        with peak() as most:
            step = step_of(norman, mode, n_cells, compiled=compiled)
            times = seconds(lambda step=step: [step() for _ in range(10)])  # type: ignore[misc]
            about = {"trained": mode + ", compiled" * compiled, "cells a step": n_cells}
            table.append(about | timed(10 * n_cells, times) | {"peak, GiB": most()})
            del step
    return table


def largest_batch(norman: Norman) -> list[Row]:
    """Measure the memory of a step for two batches, and say how many cells fit a card: a line through both."""
    if not GPU:
        return [{"trained": mode, "note": "memory is measured on a GPU alone"} for mode in MODES]
    table = []
    for mode in MODES:
        used = []
        for n_cells in norman.size.batches:
            with peak() as most:
                step = step_of(norman, mode, n_cells)
                step()
                step()
                used.append(most())
                del step
        small, large = norman.size.batches
        each = (used[1] - used[0]) / (large - small)
        fits = {f"cells in {card} GB": int((0.95 * card * 1e9 / GIB - used[0]) / each) + small for card in (16, 24, 80)}
        table.append({"trained": mode, "MiB a cell": each * 1024} | fits)
    return table


def logreg(norman: Norman) -> list[Row]:
    """Fit the softmax regression on reference and validation cells with PyTorch on the device and with SciPy."""
    screen = norman.split
    known = screen.rows("reference", "validation")
    x = features(screen, "log1p")[known]
    _, y = np.unique(screen.conditions[known].astype(str), return_inverse=True)
    start = time.perf_counter()
    found = fit_softmax(x, y, C, 500, device=DEVICE)
    first = time.perf_counter() - start
    times = seconds(lambda: fit_softmax(x, y, C, 500, device=DEVICE), 2)
    path = seconds(partial(whole_path, x, y), 1)
    start = time.perf_counter()
    with patch.object(softmax, "gpu", lambda: None):
        theirs = fit_softmax(x, y, C, 500)
    here = {"iterations": found.n_iter, "objective": found.objective}
    return [
        {"fit": f"{x.shape[0]:,} x {x.shape[1]:,} x {y.max() + 1}, C {C:g}", "seconds": statistics.median(times)}
        | here,
        {"fit": "the first one, with the start of CUDA", "seconds": first},
        {"fit": f"path of {len(PATH)} C, each from the one before", "seconds": path[0]},
        {"fit": f"C {C:g} with SciPy on {os.cpu_count()} cores", "seconds": time.perf_counter() - start}
        | {"iterations": theirs.n_iter, "objective": theirs.objective},
    ]


def whole_path(x: Any, y: np.ndarray) -> None:
    """Fit each C from the one before."""
    weights = None
    for c in PATH:
        found = fit_softmax(x, y, c, 500, weights, device=DEVICE)
        weights = (found.coef, found.intercept)


def search(norman: Norman) -> list[Row]:
    """Search every reference cell for every query, of random embeddings as wide as the large backbone's."""
    n_reference, n_queries = norman.size.library
    rng = np.random.default_rng(0)
    reference, queries = (
        rng.standard_normal((n, norman.size.width), dtype=np.float32) for n in (n_reference, n_queries)
    )
    labels = np.array([f"G{i % norman.size.conditions:03}+ctrl" for i in range(n_reference)], dtype=object)
    table = []
    for kind in ("raw_cell", "raw_cell_vote"):
        ranker = LibraryRanker(PARAMS.library.model_copy(update={"kind": kind, "similarity": "cosine"}))
        ranker.fit(reference, labels)
        times = seconds(partial(ranker.search, queries, DEVICE), 2)
        start = time.perf_counter()
        with patch.object(library, "gpu", lambda: None):
            ranker.search(queries)
        sizes = {"library": kind, "queries": n_queries, "vectors": n_reference}
        columns = {"seconds": statistics.median(times), f"NumPy on {os.cpu_count()} cores": time.perf_counter() - start}
        table.append(sizes | columns)
    return table


def protocol(norman: Norman) -> list[Row]:
    """Run the specification's protocol with the small backbone as experiments/norman_scale.yaml does, in bfloat16."""
    screen = norman.split
    queries = screen.rows("query")
    names = np.array(screen.classes(), dtype=object)
    table: list[Row] = []

    def judged(model: str, log_proba: np.ndarray, began: float) -> None:
        metrics = registry.compute(log_proba, screen.conditions[queries], names)
        table.append(
            {"model": model, "seconds": time.perf_counter() - began}
            | {name: metrics[name] for name in ("exact_hit@1", "mrr", "ndcg@5")}
        )

    began = time.perf_counter()
    x = features(screen, "log1p_depth")
    train, held = screen.rows("reference"), screen.rows("validation")
    code = np.searchsorted(names.astype(str), screen.conditions.astype(str))
    best, weights = (np.inf, C), None
    for c in PATH:
        found = fit_softmax(x[train], code[train], c, 500, weights, device=DEVICE)
        weights = (found.coef, found.intercept)
        loss = nn.functional.cross_entropy(
            torch.from_numpy(x[held] @ found.coef.T + found.intercept), torch.from_numpy(code[held])
        )
        best = min(best, (loss.item(), c))
    known = screen.rows("reference", "validation")
    found = fit_softmax(x[known], code[known], best[1], 500, device=DEVICE)
    judged(f"logreg, C {best[1]:g}", x[queries] @ found.coef.T + found.intercept, began)

    began = time.perf_counter()
    sizes = (PARAMS.pretrain.layers, PARAMS.pretrain.width, PARAMS.pretrain.heads)
    pretrained, checkpoint = norman.checkpoint(*sizes), norman.checkpoint(*sizes)
    rows = norman.screen.rows("reference", CONTROL_PART)
    tokens = checkpoint.tokenizer(norman.screen, PARAMS)(norman.screen).take(rows)
    config = PARAMS.pretrain.model_copy(update={"epochs": 1})
    pretrain(pretrained.backbone, tokens, checkpoint.architecture, config, device=DEVICE)
    # Upstream's class keeps tensors of its last call, which cannot be copied as fine-tuning does.
    checkpoint.backbone.load_state_dict(pretrained.backbone.state_dict())
    table.append({"model": "pretraining, 1 epoch", "seconds": time.perf_counter() - began})
    for seed in (0, 1):
        began = time.perf_counter()
        model, source = trained_small(screen, checkpoint, seed)
        logits = predict_in_order(model, source, queries, DEVICE)[1]
        assert logits is not None
        judged(f"scgpt, seed {seed}", logits, began)
    return table


def trained_small(screen: MaskedScreen, checkpoint: ScgptCheckpoint, seed: int) -> tuple[EncoderClassifier, Tokens]:
    """Fine-tune three epochs, as the preset does."""
    config = finetune_config(schedule={"epochs": 3}, head={"dropout": 0.5})
    tokenize = checkpoint.tokenizer(screen, PARAMS)
    tokens = tokenize(screen)
    conditions, targets = np.unique(screen.conditions.astype(str), return_inverse=True)
    train, validation = screen.rows("reference"), screen.rows("validation")
    torch.manual_seed(seed)
    model = EncoderClassifier(checkpoint.backbone, checkpoint.token_ids(screen), len(conditions), config)
    data = TrainingData(
        screen.cell_ids,
        tokens,
        targets,
        list(conditions),
        train,
        validation,
        resampler(screen, train, tokenize, config.augmentation),
    )
    accelerator = make_accelerator("bfloat16" if GPU else "float32")
    fit(
        model,
        data,
        config,
        seed=seed,
        epochs=config.schedule.epochs,
        accelerator=accelerator,
        on_epoch=lambda epoch: print(
            f"gpu: scgpt, seed {seed}, epoch {epoch.epoch}, {epoch.seconds:.1f} s", flush=True
        ),
    )
    return model, tokens


SECTIONS: dict[str, Callable[[Norman], list[Row]]] = {
    "card": card,
    "embed": embed,
    "finetune": finetune,
    "largest batch": largest_batch,
    "logreg": logreg,
    "search": search,
    "protocol": protocol,
}


def about() -> dict[str, Any]:
    """Say what it is measured on."""
    name = torch.cuda.get_device_name() if GPU else f"no GPU, {platform.machine()} CPU"
    memory = round(torch.cuda.get_device_properties(0).total_memory / GIB, 1) if GPU else None
    return {"device": name, "memory_gib": memory, "cores": os.cpu_count(), "torch": torch.__version__}


def page(found: dict[str, Any]) -> str:
    """Write the results as Markdown."""
    device = found["about"]
    parts = [
        "Made by `benchmarks/gpu.sh`"
        + (" --tiny: sizes too small to say anything about speed." if found["tiny"] else ".")
        + " Simulated cells; nothing here is about biology.",
        f"{device['device']}, {device['memory_gib']} GiB, {device['cores']} CPU cores, torch {device['torch']}",
    ]
    for name, section in found["sections"].items():
        parts.append(f"## {name} ({section['seconds']:.0f} s)\n\n{SECTIONS[name].__doc__}")
        parts.append(f"Failed: {section['error']}" if "error" in section else markdown(section["rows"], decimals=3))
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="small sizes, on a CPU too")
    parser.add_argument(
        "--output", type=Path, default=Path("results/benchmarks"), help="folder for gpu.json and gpu.md"
    )
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    args = parser.parse_args()
    if not GPU and not args.tiny:
        sys.exit("gpu: torch finds no NVIDIA GPU here; --tiny runs everything on small sizes")
    args.output.mkdir(parents=True, exist_ok=True)
    norman = Norman(TINY if args.tiny else FULL)
    found: dict[str, Any] = {"about": about(), "tiny": args.tiny, "sections": {}}
    results = args.output / "gpu.json"
    if args.only != list(SECTIONS) and results.exists():  # the others stay, if they are of the same device and size
        before = json.loads(results.read_text(encoding="utf-8"))
        found["sections"] = before["sections"] if before | {"sections": {}} == found else {}
    start = time.perf_counter()
    cells = len(norman.split.cell_ids)
    print(f"gpu: {cells:,} cells simulated in {time.perf_counter() - start:.0f} s", flush=True)
    failed = False
    for name in args.only:
        start = time.perf_counter()
        section: dict[str, Any] = {}
        try:
            section["rows"] = SECTIONS[name](norman)
        except Exception as error:
            section["error"], failed = f"{type(error).__name__}: {error}", True
        section["seconds"] = time.perf_counter() - start
        found["sections"][name] = section
        results.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        (args.output / "gpu.md").write_text(page(found), encoding="utf-8")
        print(f"gpu: {name}, {section['seconds']:.0f} s {section.get('error', '')}", flush=True)
    print(page(found))
    sys.exit(failed)


if __name__ == "__main__":
    main()
