"""How long each stage of a run took, from what DVC prints."""

import re
import time
from collections.abc import Callable
from itertools import pairwise

STARTED = re.compile(r"Running stage '(.+)':")


class StageTimes:
    """Watches the lines DVC prints; ``str`` of it says what each stage took, empty where none has run."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._starts: list[tuple[str, float]] = []

    def see(self, line: str) -> None:
        """Take note of a line that starts a stage."""
        if started := STARTED.match(line):
            self._starts.append((started[1], self._clock()))

    def __str__(self) -> str:
        """List the stages in the order they ran; the last one lasts until now."""
        marks = [*self._starts, ("", self._clock())]
        took = [f"{name} {(after - start) / 60:.1f}" for (name, start), (_, after) in pairwise(marks)]
        return f"minutes by stage: {', '.join(took)}" if took else ""
