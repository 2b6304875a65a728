"""What ends a command with one line instead of a traceback."""

import os
from collections.abc import Sequence
from typing import ClassVar

MOST_LISTED = 10


class InputError(ValueError):
    """Something a user gave is wrong: the message names the file, the field, what was found and what to do."""

    exit_code: ClassVar[int] = 2


class InUseError(InputError):
    """Another run holds what this one needs; the same command may succeed later."""

    exit_code = os.EX_TEMPFAIL


def listed(items: Sequence[object], most: int = MOST_LISTED) -> str:
    """Write items in a line, the first ``most`` of them and the number of the others."""
    more = f" and {len(items) - most:,} more" if len(items) > most else ""
    return ", ".join(map(str, items[:most])) + more
