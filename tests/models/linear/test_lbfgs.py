"""The minimum is found in about as many evaluations as scipy takes, and the search says whether it got there."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize, rosen, rosen_der

from reverse_perturbation.models.linear.lbfgs import lbfgs


class Counted:
    """Rosenbrock's function of 10 numbers, whose valley is curved: steps of 1 overshoot."""

    def __init__(self):
        self.evaluations = 0

    def __call__(self, point):
        self.evaluations += 1
        flat = point.numpy().ravel()
        return float(rosen(flat)), torch.from_numpy(rosen_der(flat)).reshape(point.shape)


START = torch.linspace(-1, 2, 10, dtype=torch.float64).reshape(5, 2)


def test_about_as_many_evaluations_as_scipy():
    objective = Counted()
    found = lbfgs(objective, START, 500, 1e-12)
    options = {"maxcor": 20, "ftol": 1e-12, "gtol": 0.0}
    theirs = minimize(rosen, START.numpy().ravel(), jac=rosen_der, method="L-BFGS-B", options=options)
    assert found.converged
    assert found.value == pytest.approx(0, abs=1e-9)
    assert found.point.numpy() == pytest.approx(np.ones((5, 2)), abs=1e-4)
    assert objective.evaluations < 1.5 * theirs.nfev


def test_the_first_step_may_be_far_too_long_or_short():
    for scale in (1e4, 1e-4):
        found = lbfgs(lambda x, scale=scale: (float(scale * (x**2).sum() / 2), scale * x), START, 50, 1e-14)
        assert found.converged
        assert found.value <= 1e-9


def test_too_few_iterations():
    found = lbfgs(Counted(), START, 5, 1e-12)
    assert (found.n_iter, found.converged) == (5, False)
    assert 0.1 < found.value < rosen(START.numpy().ravel())


def test_a_start_at_the_minimum():
    found = lbfgs(Counted(), torch.ones(5, 2, dtype=torch.float64), 50, 1e-12)
    assert (found.n_iter, found.converged, found.value) == (0, True, 0)


def test_nothing_lower_in_the_direction_of_the_gradient():
    """As where rounding hides the descent: it ends where it was, and is not called converged."""
    found = lbfgs(lambda x: (float((x**2).sum()), -2 * x), START, 50, 1e-12)
    assert (found.n_iter, found.converged) == (0, False)
    assert torch.equal(found.point, START)


def test_rounding_that_hides_the_last_decrease():
    """A value too low by less than the tolerance at the start, where the slope still shows a way down."""
    found = lbfgs(
        lambda x: (float((x**2).sum() / 2 - 1.5e-6 * bool(x.any())), x),
        torch.full((1,), 2e-6**0.5, dtype=torch.float64),
        50,
        1e-6,
    )
    assert found.converged
    assert found.value == pytest.approx(-0.5e-6, rel=1e-6)
