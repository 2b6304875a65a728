"""Time the stages by cells, genes, conditions and tokens, and their memory: a table and a plot of cost curves.

    OMP_NUM_THREADS=1 python benchmarks/stages.py                                # up to the size of Norman, minutes
    OMP_NUM_THREADS=1 python benchmarks/stages.py --cells 1000 3000 --genes 600 --conditions 20 --at 3000     # a trial

Each stage runs in a process of its own, on the files of the stages before, simulated cells among them; the seconds
count from the import of its modules, the peak is that process's. Beside the stages before any model: tokens, the screen
read, masked and tokenised; logreg, so many iterations of its fit; search, every query's nearest cells among random
embeddings of full width, which grows with cells times cells; and embed, random weights applied to random tokens, the
small backbone by cells and the large one by tokens of a cell. Where `dvc repro` would do nothing that is timed too.

The limit is what the operations of a stage's matrix products would take at the machine's matrix rate, or its input,
read once, and its output, written once, at the rate of a copy, whichever is more.
"""

import argparse
import cProfile
import importlib
import multiprocessing
import os
import pstats
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator
from ruamel.yaml import YAML

from reverse_perturbation.report.markdown import markdown

T = TypeVar("T")
Size = tuple[int, int, int]  # cells, genes, conditions
Work = tuple[float, float]  # operations of matrix products, and bytes that must be read and written
Job = tuple[Callable[..., Work], Sequence[object]]
MOST = 5  # functions of a stage that are named
AXES = ("cells", "genes", "conditions")
NORMAN: Size = (91205, 5045, 282)
FILES = {
    "prepare": ["--output", "cells.h5ad"],
    "audit": ["--cells", "cells.h5ad", "--metrics", "audit.json", "--plots", "audit", "--report", "audit.md"],
    "vocab_map": ["--cells", "cells.h5ad", "--output", "genes.csv", "--metrics", "genes.json"],
    "split": ["--cells", "cells.h5ad", "--output", "split.csv", "--metrics", "split.json"],
}
ITERATIONS = 10  # of logistic regression
TOKENS = 410  # of a cell of Norman
SMALL, LARGE = (2, 64, 4), (12, 512, 8)  # layers, width and heads of the backbones
REFERENCE, QUERY, WIDTH = 0.74, 0.18, 512  # shares of the cells in Norman's split; numbers in an embedding


def write_params(folder: Path, size: Size) -> None:
    """Write params.yaml for a simulated screen of a size, everything else as it stands."""
    params = YAML(typ="safe").load(Path("params.yaml"))
    params["data"]["simulated"] |= {f"n_{axis}": n for axis, n in zip(AXES, size, strict=True)}
    params["labels"] = "legacy"
    YAML(typ="safe").dump(params, folder / "params.yaml")


def run_stage(name: str, folder: Path) -> Work:
    """Run a stage on the files in a folder."""
    import h5py

    argv = [each if each.startswith("--") else str(folder / each) for each in FILES[name]]
    stage = importlib.import_module(f"reverse_perturbation.stages.{name}")
    stage.main(["--params", str(folder / "params.yaml"), *argv])
    with h5py.File(folder / "cells.h5ad") as file:
        return 0, sum(file["layers/counts"][each].nbytes for each in ("data", "indices"))


def run_tokens(folder: Path) -> Work:
    """Read the screen and tokenise it, binned, as for the official checkpoint."""
    from reverse_perturbation.config import load_params
    from reverse_perturbation.data.screen.masked_screen import load_masked_screen
    from reverse_perturbation.models.scgpt.encoder.tokenize import tokenize
    from reverse_perturbation.models.scgpt.pretrain import small_vocabulary

    files = [folder / each for each in ("cells.h5ad", "split.csv", "genes.csv")]
    screen = load_masked_screen(*files, mask="own", genes="all")
    vocabulary = small_vocabulary(np.unique(screen.tokens[screen.tokens != ""]))
    tokens = tokenize(
        screen.counts,
        screen.totals,
        token_ids=np.array([vocabulary.get(token, -1) for token in screen.tokens]),
        cell_ids=screen.cell_ids,
        config=load_params().scgpt.model_copy(update={"value_input": "binned"}),
        n_bins=51,
        vocabulary=vocabulary,
        pad_value=-2,
    )
    arrays = (screen.counts.data, screen.counts.indices, tokens.ids, tokens.values)
    return 0, sum(each.nbytes for each in arrays)


def run_logreg(folder: Path) -> Work:
    """Read the screen and take some steps towards a logistic regression on all of it."""
    from reverse_perturbation.data.screen.masked_screen import load_masked_screen
    from reverse_perturbation.models.linear.softmax import fit_softmax

    screen = load_masked_screen(
        *(folder / each for each in ("cells.h5ad", "split.csv", "genes.csv")), mask="own", genes="all"
    )
    x, (names, y) = screen.log1p(), np.unique(screen.conditions, return_inverse=True)
    fit_softmax(x, y, 0.01, ITERATIONS)
    # The scores and the gradient, before the first iteration and in each.
    return (ITERATIONS + 1) * 2 * 2 * x.nnz * len(names), x.data.nbytes + x.indices.nbytes


def run_embed(cells: int, tokens: int, layers: int, width: int, heads: int) -> Work:
    """Embed cells of as many tokens each."""
    import torch
    from accelerate import Accelerator
    from machine import finetune_config, operations

    from reverse_perturbation.config import load_params
    from reverse_perturbation.models.embed import embed_cells
    from reverse_perturbation.models.encoder.tokens import Tokens
    from reverse_perturbation.models.finetune.network.classifier import EncoderClassifier
    from reverse_perturbation.models.scgpt.encoder.backbone import ScgptBackbone
    from reverse_perturbation.models.scgpt.pretrain import small_architecture, small_vocabulary

    sizes = load_params().pretrain.model_copy(update={"layers": layers, "width": width, "heads": heads})
    architecture = small_architecture(sizes, "log1p")
    vocabulary = small_vocabulary(np.array([f"g{i}" for i in range(NORMAN[1])], dtype=object))
    frozen = finetune_config(adaptation={"mode": "frozen"}, head={"readout": ["cls"]})
    model = EncoderClassifier(ScgptBackbone(architecture, vocabulary), torch.arange(NORMAN[1]), 2, frozen)
    rng = np.random.default_rng(0)
    source = Tokens(
        ids=rng.integers(0, NORMAN[1], cells * tokens, dtype=np.int32),
        values=rng.random(cells * tokens, dtype=np.float32),
        offsets=np.arange(cells + 1) * tokens,
        cls_id=vocabulary["<cls>"],
        pad_id=vocabulary["<pad>"],
        pad_value=architecture.pad_value,
    )
    embed_cells(model, source, np.arange(cells).astype(str).astype(object), ["a", "b"], Accelerator(cpu=True))
    return operations(source.lengths, architecture), source.ids.nbytes + source.values.nbytes + 4 * cells * width


def run_search(cells: int, conditions: int) -> Work:
    """Find every query's nearest cells among random embeddings."""
    from search import build

    reference, n_queries = int(REFERENCE * cells), int(QUERY * cells)
    ranker, queries, _ = build("raw_cell_vote", "cosine", (reference, n_queries, WIDTH, conditions))
    ranker.search(queries)
    return 2 * reference * n_queries * WIDTH, 4 * (reference + n_queries) * WIDTH


def machine_rates() -> tuple[dict[int, float], float]:
    """Return operations a second in matrix products of each backbone's width, and bytes a second in a copy."""
    import torch
    from machine import copy_rate, matrix_rate

    return {width: matrix_rate(torch.float32, width) for _, width, _ in (SMALL, LARGE)}, copy_rate()


def measured(call: Callable[..., Work], arguments: Sequence[object]) -> dict[str, float]:
    """Return seconds, seconds of computing, peak memory and work of this process, which does nothing else."""
    start, started = time.perf_counter(), time.process_time()
    with redirect_stdout(sys.stderr):
        operations, moved = call(*arguments)
    seconds, computing = time.perf_counter() - start, time.process_time() - started
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    spent = {"seconds": seconds, "of computing": computing, "peak, GB": most}
    return spent | {"GFLOP": operations / 1e9, "GB in and out": moved / 1e9}


def profiled(call: Callable[..., Work], arguments: Sequence[object]) -> dict[str, float]:
    """Return the share of the time in each function's own lines, most first; of a call into C, in the call."""
    profile = cProfile.Profile()
    with redirect_stdout(sys.stderr):
        profile.runcall(call, *arguments)
    own: dict[str, float] = {}
    for (file, _, name), (*_, seconds, _, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        function = name if file == "~" else f"{Path(file).stem}.{name}"
        own[function] = own.get(function, 0.0) + seconds
    total = sum(own.values())
    return {name: own[name] / total for name in sorted(own, key=own.__getitem__, reverse=True)}


def alone(function: Callable[..., T], arguments: Sequence[object] = ()) -> T:
    """Apply a function in a process that does nothing else."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def limits(frame: pd.DataFrame, rates: tuple[dict[int, float], float]) -> list[str]:
    """Return the seconds that each row's work would take at the machine's rates."""
    matrix, copy = rates
    width = frame["stage"].str.endswith("x 64").map({True: SMALL[1], False: LARGE[1]})
    computing, copying = 1e9 * frame["GFLOP"] / width.map(matrix), 1e9 * frame["GB in and out"] / copy
    return [f"{each:.2g}" for each in np.maximum(computing, copying)]


def costs(size: Size, embed: bool, profile: bool) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Return what each stage costs at a size and, where profiled, the functions that most of the time goes to."""
    rows: list[dict[str, object]] = []
    functions: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_params(folder, size)
        jobs: dict[str, Job] = {stage: (run_stage, (stage, folder)) for stage in FILES}
        jobs |= {"tokens": (run_tokens, (folder,)), f"logreg, {ITERATIONS} iterations": (run_logreg, (folder,))}
        jobs |= {"search": (run_search, (size[0], size[2]))}
        if embed:
            jobs |= {"embed, 2 x 64": (run_embed, (size[0], TOKENS, *SMALL))}
        for stage, job in jobs.items():
            about = {"stage": stage} | {axis: f"{n:,}" for axis, n in zip(AXES, size, strict=True)}
            rows.append(about | alone(measured, job))
            if profile:
                most = list(alone(profiled, job).items())[:MOST]
                functions.append({"stage": stage, "share": ", ".join(f"`{each}` {share:.0%}" for each, share in most)})
    return rows, functions


def draw(rows: pd.DataFrame, lengths: pd.DataFrame, sizes: dict[str, list[Size]], path: Path) -> None:
    """Draw seconds and peak memory of each stage along each axis, and of the large backbone by tokens."""
    columns = []
    for axis in AXES:
        others = [f"{n:,} {name}" for name, n in zip(AXES, sizes[axis][-1], strict=True) if name != axis]
        title = ", ".join(others) if axis != "cells" else f"{NORMAN[1]:,} genes"
        along = rows.set_index("size").loc[[str(size) for size in sizes[axis]]]
        columns.append((axis, title, along.assign(x=along[axis].str.replace(",", "").astype(int))))
    columns.append(("tokens of a cell", f"{lengths['cells'].iloc[0]} cells", lengths.assign(x=lengths["tokens"])))
    figure = Figure(figsize=(16, 6.5), layout="constrained")
    panels = figure.subplots(2, len(columns), squeeze=False)
    colors = {stage: f"C{i}" for i, stage in enumerate(dict.fromkeys([*rows["stage"], *lengths["stage"]]))}
    for (above, below), (name, title, found) in zip(panels.T, columns, strict=True):
        lines = found.groupby("stage", sort=False).filter(lambda each: len(each) > 1)
        for stage, each in lines.groupby("stage", sort=False):
            style = {"color": colors[stage], "marker": "."}
            above.loglog(each["x"], each["seconds"], **style)
            below.plot(each["x"], each["peak, GB"], **style)
        x = sorted(set(lines["x"]))
        above.loglog(x, [lines["seconds"].max() * each / x[-1] for each in x], color="grey", linestyle=":")
        above.set_xticks(x, labels=[f"{each:,}" for each in x], fontsize=7)
        above.minorticks_off()
        above.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
        above.yaxis.set_major_formatter("{x:g}")
        above.set_title(title, fontsize=9)
        below.set(xlabel=name, xlim=(0, None), ylim=(0, 1.1 * lines["peak, GB"].max()))
    panels[0, 0].set_ylabel("seconds")
    panels[1, 0].set_ylabel("peak memory, GB")
    handles = [Line2D([], [], color=color, marker=".", label=stage) for stage, color in colors.items()]
    handles.append(Line2D([], [], color="grey", linestyle=":", label="in proportion"))
    figure.legend(handles=handles, loc="outside right center", frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def nothing_to_do(repeats: int) -> str:
    """Time `dvc repro` where nothing has changed."""
    if "Running stage" in subprocess.run(["dvc", "repro", "--dry"], capture_output=True, text=True).stdout:
        return "`dvc repro` would run something here, so it was not timed."
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run(["dvc", "repro"], capture_output=True, check=True)
        seconds.append(time.perf_counter() - start)
    spread = f"{min(seconds):.1f} to {max(seconds):.1f}"
    return f"`dvc repro` with nothing to do: {statistics.median(seconds):.1f} s ({spread}, {repeats} times)."


def main() -> None:
    """Run all sizes, smallest first, print the table and draw the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs="+", default=[1000, 5000, 20000, 40000, NORMAN[0]])
    parser.add_argument("--genes", type=int, nargs="+", default=[600, 1500, 3000])
    parser.add_argument("--conditions", type=int, nargs="+", default=[40, 120])
    parser.add_argument("--at", type=int, default=20000, help="cells where genes or conditions vary")
    parser.add_argument("--tokens", type=int, nargs="+", default=[100, 200, 400, 800, 1200])
    parser.add_argument("--plot", type=Path, default=Path("results/benchmarks/stages.png"))
    args = parser.parse_args()

    def conditions(cells: int) -> int:
        return min(NORMAN[2], cells // 100)  # as many as have room

    standard: Size = (args.at, NORMAN[1], conditions(args.at))
    sizes: dict[str, list[Size]] = {
        "cells": [(n, NORMAN[1], conditions(n)) for n in args.cells],
        "genes": [*((args.at, n, standard[2]) for n in args.genes), standard],
        "conditions": [*((args.at, NORMAN[1], n) for n in args.conditions), standard],
    }
    rows, functions = [], []
    for size in sorted({size for each in sizes.values() for size in each}):
        found, most = costs(size, embed=size in sizes["cells"], profile=size == standard)
        rows += [row | {"size": str(size)} for row in found]
        functions += most
    frame = pd.DataFrame(rows)
    lengths = pd.DataFrame(
        [
            {"stage": "embed, 12 x 512", "cells": 16, "tokens": n} | alone(measured, (run_embed, (16, n, *LARGE)))
            for n in args.tokens
        ]
    )
    draw(frame, lengths, sizes, args.plot)
    rates = alone(machine_rates)
    for each in (frame, lengths):
        each["limit, s"] = limits(each, rates)
    told = [f"{rate / 1e9:.0f} GFLOP/s in matrix products {width} wide" for width, rate in rates[0].items()]
    told.append(f"{rates[1] / 1e9:.0f} GB/s read and written in a copy")
    print(f"{len(os.sched_getaffinity(0))} cores, {', '.join(told)}; simulated screens, mask own, legacy labels\n")
    print(markdown(frame.drop(columns="size"), decimals=2))
    print(f"\nThe large backbone, 12 layers of width 512:\n\n{markdown(lengths, decimals=2)}")
    print(f"\nWhere the time goes with {standard[0]:,} cells:\n\n{markdown(functions)}\n\n{nothing_to_do(5)}")


if __name__ == "__main__":
    main()
