"""Where models compute."""

from accelerate import Accelerator

from reverse_perturbation.sections import Precision


def make_accelerator(precision: Precision) -> Accelerator:
    """Return the accelerator, of the GPU if there is one, with as many processes as ``accelerate launch`` started."""
    return Accelerator(mixed_precision="bf16" if precision == "bfloat16" else "no")
