"""Leftovers of killed processes: experiments that DVC shows as running for ever, with the figures of the branch."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dvc.repo import Repo

from reverse_perturbation.errors import InputError
from reverse_perturbation.storage import read_json
from reverse_perturbation.studies.reports import git

TEMPORARY = Path(".dvc/tmp/exps")
STARTING = 600  # seconds; by then DVC has set an experiment's folder up and written its process there


@dataclass(frozen=True)
class Unfinished:
    """An experiment in a folder of its own, which DVC removes when it has ended.

    Attributes
    ----------
    name
        Of the experiment.
    folder
        Where it runs or ran.
    about
        DVC's file on it, in a folder named after its revision.
    """

    name: str
    folder: Path
    about: Path

    def process(self) -> int | None:
        """Return the process that runs DVC in the folder, None if there is none."""
        try:
            process = int((self.folder / ".dvc/tmp/lock").read_text())
            os.kill(process, 0)
        except (OSError, ValueError):
            return None
        return process

    def is_dead(self) -> bool:
        """Whether its process was killed; one that has not yet written its number is given time to."""
        starting = not (self.folder / ".dvc/tmp/lock").exists()
        return self.process() is None and not (starting and time.time() - self.folder.stat().st_mtime < STARTING)

    def remove(self) -> None:
        """Remove its folder, DVC's file on it and its task in DVC's queue."""
        with Repo() as repo:
            queue = repo.experiments.celery_queue
            for message, task in list(queue._iter_processed()):  # `dvc queue remove` refuses a task without a result
                if task.stash_rev == self.about.stem:
                    queue.celery.purge(message.delivery_tag)
        shutil.rmtree(self.folder)
        shutil.rmtree(self.about.parent)


def unfinished() -> Iterator[Unfinished]:
    """Yield the experiments that run, or that a killed process has left."""
    for file in TEMPORARY.glob("run/*/*.run"):
        try:
            about = read_json(file)
        except InputError:  # its process was killed while it wrote the file
            continue
        folder = Path(about["root_dir"])
        if TEMPORARY.absolute() in folder.parents and folder.exists():
            yield Unfinished(about["name"], folder, file)


def clear_dead() -> None:
    """Remove what killed processes have left, of any experiment."""
    for experiment in list(unfinished()):
        if experiment.is_dead():
            print(f"experiments: {experiment.name}: removed what a killed process left of it", flush=True)
            experiment.remove()


def clear(name: str) -> None:
    """Remove the experiments of a name: made from any commit, waiting in the queue, or left by a killed process.

    Raises
    ------
    InputError
        If a process is making it.
    """
    for experiment in list(unfinished()):
        if experiment.name != name:
            continue
        if (process := experiment.process()) is not None:
            raise InputError(f"{name}: process {process} is making it; wait, or end it and delete {experiment.folder}")
        experiment.remove()
    for ref in git("for-each-ref", "--format=%(refname)", f"refs/exps/*/*/{name}").splitlines():
        git("update-ref", "-d", ref)
    subprocess.run(["dvc", "exp", "remove", "-q", name], check=False, capture_output=True)  # from the queue
