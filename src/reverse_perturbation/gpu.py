"""The GPU, for code that also runs without PyTorch."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

DRIVER = ("dev/nvidia[0-9]*", "proc/driver/nvidia/gpus")  # what NVIDIA's driver shows of its cards, in containers too
ROOT = Path("/")


def gpu() -> "torch.device | None":
    """Return the GPU, None where there is none or ``CUDA_VISIBLE_DEVICES`` is empty.

    PyTorch takes seconds to import: without a driver it is not imported.
    """
    if not any(found for pattern in DRIVER for found in ROOT.glob(pattern)):
        return None
    import torch

    return torch.device("cuda") if torch.cuda.is_available() else None
