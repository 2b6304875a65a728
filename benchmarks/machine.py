"""What the benchmarks share: cells of Norman's kind, settings, and the rates this machine can reach.

OMP_NUM_THREADS=1 python benchmarks/machine.py           # the rates alone, some seconds
"""

import os
import statistics

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from timing import in_turn, short

from reverse_perturbation.config import load_params
from reverse_perturbation.data.screen.genes import load_aliases
from reverse_perturbation.models.scgpt.encoder.backbone import Architecture
from reverse_perturbation.models.scgpt.encoder.vocabulary import default_vocabulary
from reverse_perturbation.prepare.simulate import simulate
from reverse_perturbation.report.markdown import markdown
from reverse_perturbation.sections import Finetune, Simulated

GENES = 5045  # of the Norman file
FEWEST = 2000  # cells, for the simulator to have enough of each condition


def cells_like_norman(n_cells: int) -> AnnData:
    """Simulate cells with all genes of the Norman file, so that a cell has as many expressed ones as there."""
    config = Simulated(n_conditions=20, n_cells=max(n_cells, FEWEST), n_genes=GENES, seed=0)
    cells = simulate(pd.read_csv("data/norman_conditions.csv"), config, list(default_vocabulary()), load_aliases())
    return cells[np.random.default_rng(0).permutation(cells.n_obs)[:n_cells]].copy()


def finetune_config(**changes: dict[str, object]) -> Finetune:
    """Return section ``finetune`` of params.yaml with some keys changed, by the part they are in."""
    content = load_params().finetune.model_dump()
    return Finetune.model_validate(content | {part: content[part] | keys for part, keys in changes.items()})


def matrix_rate(dtype: torch.dtype, width: int, rows: int = 8192, repeats: int = 15) -> float:
    """FLOP/s of a product with a square weight, into memory in use: what a layer of that width can reach."""
    x, weight = torch.randn(rows, width).to(dtype), torch.randn(width, width).to(dtype)
    product = torch.empty_like(x)
    with torch.inference_mode():
        seconds, _ = in_turn({"product": lambda: torch.mm(x, weight, out=product)}, repeats)
    return 2 * rows * width**2 / statistics.median(seconds["product"])


def copy_rate(repeats: int = 7) -> float:
    """Return bytes per second that are read and written in a copy of 256 MiB."""
    source = np.ones(2**25)
    target = np.empty_like(source)
    seconds, _ = in_turn({"copy": lambda: np.copyto(target, source)}, repeats)
    return 2 * source.nbytes / statistics.median(seconds["copy"])


def operations(lengths: np.ndarray, architecture: Architecture) -> float:
    """Count the floating-point operations of all matrix products on the tokens of cells with so many genes."""
    tokens, width = lengths.astype(float) + 1, architecture.width
    of_a_token = 2 * (4 * width**2 + 2 * width * architecture.hidden)
    with_each_other = 4 * width * tokens
    return float((tokens * (architecture.layers * (of_a_token + with_each_other) + 2 * width**2)).sum())


def has_bfloat16() -> bool:
    """Say whether this CPU multiplies bfloat16 matrices in hardware."""
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def machine() -> str:
    """Say in a line what it is measured on."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "unknown CPU")
    cores = f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} cores"
    return f"{model}, {cores}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def main() -> None:
    """Print the rates that the others are compared with."""
    dtypes = [torch.float32, torch.bfloat16] if has_bfloat16() else [torch.float32]
    rows = [
        {"rate": f"matrix product, {width} wide, {str(dtype).removeprefix('torch.')}"}
        | {"value": f"{short(matrix_rate(dtype, width) / 1e9)} GFLOP/s"}
        for dtype in dtypes
        for width in (64, 512)
    ]
    rows.append({"rate": "copy, read and written", "value": f"{short(copy_rate() / 1e9)} GB/s"})
    print(f"{machine()}\n\n{markdown(rows)}")


if __name__ == "__main__":
    main()
