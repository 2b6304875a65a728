"""Learning rates: apart at every step, and the backbone's held back during a probe."""

import numpy as np
import pytest
import torch
from torch.optim import AdamW

from reverse_perturbation.models.recipe.schedule import make_schedule


def rates(steps, warmup_fraction, probe_steps=0):
    """[2, steps]: of the backbone and the head."""
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = AdamW(
        [
            {"name": "backbone", "params": weights[:1], "lr": 1e-5},
            {"name": "head", "params": weights[1:], "lr": 1e-3},
        ]
    )
    schedule = make_schedule(optimizer, steps, warmup_fraction, probe_steps)
    seen = []
    for _ in range(steps):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return np.array(seen).T


def test_learning_rates_stay_apart_at_every_step():
    backbone, head = rates(50, 0.2)
    assert head == pytest.approx(100 * backbone, rel=1e-9)
    assert head.max() == pytest.approx(1e-3)
    assert np.argmax(head) == 9
    assert (np.diff(head[:10]) > 0).all()
    assert (np.diff(head[10:]) < 0).all()


def test_after_a_probe_the_backbone_s_rate_rises_to_the_common_factor():
    plain, _ = rates(50, 0.1)
    backbone, head = rates(50, 0.1, probe_steps=20)
    assert (head == rates(50, 0.1)[1]).all(), "the head's is as without"
    assert (backbone[:20] == 0).all()
    assert backbone[20:25] == pytest.approx(plain[20:25] * np.array([0.2, 0.4, 0.6, 0.8, 1.0]))
    assert (backbone[25:] == plain[25:]).all()
