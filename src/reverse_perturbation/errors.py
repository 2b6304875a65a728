"""What ends a command with one line instead of a traceback."""

import os
from typing import ClassVar


class InputError(ValueError):
    """Something a user gave is wrong: the message names the file, the field, what was found and what to do."""

    exit_code: ClassVar[int] = 2


class InUseError(InputError):
    """Another run holds what this one needs; the same command may succeed later."""

    exit_code = os.EX_TEMPFAIL
