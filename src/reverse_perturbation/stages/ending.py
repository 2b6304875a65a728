"""How a stage ends early: by Ctrl-C, by SIGTERM, with the DVC that started it, or at a fault of the machine."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

import psutil

# HDF5, torch and safetensors tell of a full disk in words of their own, some over several lines.
FAULTS = (
    "No space left on device",
    "File too large",
    "Read-only file system",
    "file write failed",
    "iostream error",
    "out of memory",
)
MARK = "DVC_STAGE"  # in the environment of all processes that DVC starts for a stage
SECONDS = 1.0  # between two looks at whether it still runs


class Terminated(BaseException):
    """SIGTERM: no Exception, so that nothing but the clean-up on its way catches it."""


@contextmanager
def terminable() -> Iterator[None]:
    """Turn SIGTERM into :class:`Terminated` within the block, and send it when the DVC that started the stage is gone.

    A second SIGTERM ends the process at once. By hand, under nohup or setsid, a stage outlives what started it.
    """
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        if MARK in os.environ:
            threading.Thread(target=_watch, args=[_started_by_dvc()], daemon=True).start()
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def machine_fault(error: Exception) -> str | None:
    """Say in one line what the machine refused, such as space on a disk; None if the error is another one."""
    said = f"{error} {error.__context__}"  # torch raises a second error where it closes the file
    fault = next((fault for fault in FAULTS if fault in said), None)
    if isinstance(error, OSError):
        reason = fault or (error.strerror or str(error)).partition("\n")[0]
        return f"{error.filename}: {reason}" if error.filename else reason
    return "out of memory" if isinstance(error, MemoryError) else fault


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise Terminated


def _started_by_dvc() -> psutil.Process:
    """Return the process that DVC itself started: this one, or a shell or launcher above it."""
    process = psutil.Process()
    for parent in process.parents():
        with suppress(psutil.Error):  # of another user
            if parent.environ().get(MARK) == os.environ[MARK]:
                process = parent
                continue
        break
    return process


def _watch(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        dvc = process.ppid()
        while process.ppid() == dvc:  # an orphan is given to another process
            time.sleep(SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
