"""The stages of dvc.yaml."""

import sys
from types import TracebackType


def _without_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say in one line that Ctrl-C came while modules were imported, which takes seconds; then no stage runs yet."""
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted; repeat the command to resume", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _without_traceback
