"""L-BFGS on a device, with the history, stopping rule and kind of line search of scipy's.

``torch.optim.LBFGS`` is not used: it stops at an absolute change or a small step, not at a relative change of the
objective, and its first use imports ``torch._dynamo``, which takes about as long as a fit.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch

HISTORY = 20  # steps from which the curvature is estimated
EVALUATIONS = 30  # of one line search: 2 ** -30 of a step changes nothing that can be measured
DECREASE, CURVATURE = 1e-4, 0.9  # of the Wolfe conditions

Objective = Callable[[torch.Tensor], tuple[float, torch.Tensor]]
Steps = deque[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]  # step, change of the gradient, 1 over their product


@dataclass(frozen=True)
class Minimum:
    """Where the search ended: the point, the objective there, iterations, and whether they were enough."""

    point: torch.Tensor
    value: float
    n_iter: int
    converged: bool


def lbfgs(objective: Objective, start: torch.Tensor, max_iter: int, tolerance: float) -> Minimum:
    """Minimise a smooth function, which returns its value and gradient.

    Stop when an iteration lowers it, or can, by at most ``tolerance * max(|value|, 1)``, or, not converged, after
    ``max_iter`` iterations or when the line search finds nothing.
    """
    point = start
    value, gradient = objective(point)
    steps: Steps = deque(maxlen=HISTORY)
    for iteration in range(max_iter):
        slack = tolerance * max(abs(value), 1)
        direction = -_newton(gradient, steps)
        slope = float(_dot(direction, gradient))
        if -slope <= slack:  # about twice what the step would gain
            return Minimum(point, value, iteration, True)
        found = _line_search(objective, point, direction, value, slope, slack)
        if found is None:
            return Minimum(point, value, iteration, False)
        there, value_there, gradient_there = found
        if value - value_there <= slack:
            return Minimum(there if value_there < value else point, min(value, value_there), iteration + 1, True)
        step, change = there - point, gradient_there - gradient
        steps.append((step, change, 1 / _dot(step, change)))  # positive by the Wolfe conditions
        point, value, gradient = there, value_there, gradient_there
    return Minimum(point, value, max_iter, False)


def _line_search(
    objective: Objective, point: torch.Tensor, direction: torch.Tensor, value: float, slope: float, slack: float
) -> tuple[torch.Tensor, float, torch.Tensor] | None:
    """Return a point, its value and gradient, by the strong Wolfe conditions: halve or double the whole step.

    The value may be higher by the slack: near the minimum rounding hides the decrease that the slopes still show (Hager
    and Zhang 2005, doi:10.1137/030601880). The weak conditions let steps pass that overshoot and gain almost nothing.
    """
    low, high, size = 0.0, float("inf"), 1.0
    for _ in range(EVALUATIONS):
        there = point + size * direction
        value_there, gradient_there = objective(there)
        slope_there = float(_dot(direction, gradient_there))
        if value_there > value + DECREASE * size * slope + slack or slope_there > -CURVATURE * slope:
            high = size
        elif slope_there < CURVATURE * slope:
            low = size
        else:
            return there, value_there, gradient_there
        size = 2 * low if high == float("inf") else (low + high) / 2
    return None


def _newton(gradient: torch.Tensor, steps: Steps) -> torch.Tensor:
    """Return the inverse of the estimated curvature times the gradient: Nocedal's two loops."""
    result, shares = gradient.clone(), []
    for step, change, weight in reversed(steps):
        shares.append(weight * _dot(step, result))
        result.addcmul_(change, shares[-1], value=-1)
    if steps:
        _, change, weight = steps[-1]
        result /= weight * _dot(change, change)
    for (step, change, weight), share in zip(steps, reversed(shares), strict=True):
        result.addcmul_(step, share - weight * _dot(change, result))
    return result


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.dot(a.flatten(), b.flatten())
