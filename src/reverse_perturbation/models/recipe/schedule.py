"""Learning rates over the steps of training."""

import math

from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR


def make_schedule(optimizer: AdamW, steps: int, warmup_fraction: float, probe_steps: int = 0) -> LambdaLR:
    """Rise linearly, then fall to zero as a cosine; one factor for all groups, so their ratio stays.

    During ``probe_steps`` the group named ``backbone`` has rate 0; then it rises to the others' factor in as many
    steps as they took. AdamW's first steps are of full size whatever the gradient, so its learning rate is ramped up.
    """
    warmup = max(1, round(steps * warmup_fraction))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))

    def after_probe(step: int) -> float:
        return factor(step) * min(1.0, max(0, step - probe_steps + 1) / warmup)

    late = [probe_steps > 0 and group.get("name") == "backbone" for group in optimizer.param_groups]
    return LambdaLR(optimizer, [after_probe if is_late else factor for is_late in late])
