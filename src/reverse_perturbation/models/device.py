"""Where models compute."""

import torch
from accelerate import Accelerator

from reverse_perturbation.sections import Precision


def compute_device() -> torch.device:
    """Return the GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def make_accelerator(precision: Precision) -> Accelerator:
    """Return the accelerator of that device, with as many processes as ``accelerate launch`` has started."""
    return Accelerator(mixed_precision="bf16" if precision == "bfloat16" else "no")
