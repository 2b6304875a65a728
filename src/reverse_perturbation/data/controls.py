"""Control cells apart from the cells of the split."""

from dataclasses import replace

import numpy as np

from reverse_perturbation.data.screen import CONTROL_PART, Screen


def apart(screen: Screen) -> tuple[Screen, Screen]:
    """Divide a screen loaded with its control cells: the cells of the split, in its order, and the control cells."""
    control = screen.parts == CONTROL_PART
    return _take(screen, ~control), _take(screen, control)


def _take(screen: Screen, rows: np.ndarray) -> Screen:
    return replace(
        screen,
        cells=screen.cells[rows],
        conditions=screen.conditions[rows],
        parts=screen.parts[rows],
        counts=screen.counts[rows],
        totals=screen.totals[rows],
    )
