"""Run the pipeline as a DVC experiment in a folder of its own, and read what it made."""

import re
import subprocess
import sys
import time
from collections.abc import Mapping

from dvc.api import DVCFileSystem

# What DVC says when it runs a stage, and when that has ended well.
STARTS = re.compile(r"Running stage '([^']+)'")
ENDS = re.compile(r"(Updating|Generating) lock file")


def run_experiment(name: str, settings: Mapping[str, str], *targets: str) -> tuple[DVCFileSystem, dict[str, float]]:
    """Run ``dvc exp run --temp``: the working tree and its results stay as they are.

    An experiment of this name from an earlier commit gives way; its stages still come from the run-cache.

    Parameters
    ----------
    name
        Of the experiment.
    settings
        What is given to ``-S``, by key of params.yaml.
    targets
        Stages to run with what they need; none: all.

    Returns
    -------
    files, seconds
        The experiment's files, and the wall-clock seconds of each stage that ran, none for one from the run-cache.

    Raises
    ------
    subprocess.CalledProcessError
        If it fails; it has said why.
    """
    subprocess.run(["dvc", "exp", "remove", "-q", name], check=False, capture_output=True)
    command = ["dvc", "exp", "run", "--temp", "-n", name]
    for key, value in settings.items():
        command += ["-S", f"{key}={value}"]
    seconds: dict[str, float] = {}
    stage, since = None, 0.0
    with subprocess.Popen([*command, *targets], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            if started := STARTS.match(line):
                stage, since = started[1], time.monotonic()
            elif stage and ENDS.match(line):
                seconds[stage], stage = time.monotonic() - since, None
    if running.returncode:
        raise subprocess.CalledProcessError(running.returncode, running.args)
    return DVCFileSystem(rev=name), seconds


def uncommitted() -> str:
    """Return what git says of changed files, empty where there are none: a report has to belong to a commit."""
    command = ["git", "status", "--porcelain", "--untracked-files=no"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
