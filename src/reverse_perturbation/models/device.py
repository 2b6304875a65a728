"""Where models compute."""

from accelerate import Accelerator

from reverse_perturbation.gpu import gpu
from reverse_perturbation.sections import Precision


def make_accelerator(precision: Precision) -> Accelerator:
    """Return the accelerator, of the GPU if there is one, with as many processes as the launcher has started.

    Without a GPU accelerate must be told so: it would take each process of torchrun for a run of its own.
    """
    return Accelerator(cpu=gpu() is None, mixed_precision="bf16" if precision == "bfloat16" else "no")
