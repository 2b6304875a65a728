"""Rows of a preset as an array of Slurm jobs: one task a row, each in a clone of its own with the cache of this one."""

import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from reverse_perturbation.errors import InputError
from reverse_perturbation.studies.presets import PATHS, Preset, Row
from reverse_perturbation.studies.reports import git

FOLDER = Path(".dvc/tmp/slurm")  # of job scripts, logs and clones; DVC's, so ignored by git
# A task that Slurm starts again after a preemption goes on with the stage it was at: those before are in the cache.
SCRIPT = """\
#!/bin/bash
set -euo pipefail
experiments=({experiments})
arguments=({arguments})
experiment=${{experiments[$SLURM_ARRAY_TASK_ID]}}
clone={folder}/clones/$experiment
test -d "$clone" || git clone -q {repository} "$clone"
cd "$clone"
git checkout -q -B row {commit}
dvc cache dir -q --local {cache}
export PYTHONPATH=src
eval "{python} -m reverse_perturbation experiments ${{arguments[$SLURM_ARRAY_TASK_ID]}}"
git push -q -f {repository} "refs/exps/{refs}/$experiment"
cd {repository}
rm -rf "$clone"
"""


def run(preset: Preset, rows: Mapping[str, Row], given: Sequence[str], options: str, at_once: int) -> dict[str, str]:
    """Submit an array and wait until it has ended.

    Parameters
    ----------
    preset
        Of the rows.
    rows
        To be made, by their names in the preset.
    given
        The values of ``-S`` of the command line.
    options
        More options of ``sbatch``, as one types them.
    at_once
        Tasks at a time at most; 0: as many as Slurm starts.

    Returns
    -------
    dict
        Experiment -> what its task printed.

    Raises
    ------
    InputError
        If ``sbatch`` is missing or refuses the job, or a row names a file that its clone would not have.
    """
    folder = FOLDER.absolute() / preset.name
    (folder / "clones").mkdir(parents=True, exist_ok=True)
    commit = git("rev-parse", "HEAD")
    words = [[preset.name, name, *_settings(preset, name, row, given)] for name, row in rows.items()]
    script = folder / "job.sh"
    script.write_text(
        SCRIPT.format(
            experiments=shlex.join(row.experiment for row in rows.values()),
            arguments=shlex.join(map(shlex.join, words)),
            folder=shlex.quote(str(folder)),
            repository=shlex.quote(git("rev-parse", "--show-toplevel")),
            commit=commit,
            refs=f"{commit[:2]}/{commit[2:]}",
            cache=shlex.quote(_cache()),
            python=shlex.quote(sys.executable),
        ),
        encoding="utf-8",
    )
    array = f"--array=0-{len(rows) - 1}" + (f"%{at_once}" if at_once else "")
    command = ["sbatch", "--wait", "--requeue", array, f"--job-name={preset.name}", f"--output={folder}/%a.log"]
    command += [*shlex.split(options), str(script)]
    print(f"experiments: {len(rows)} tasks, logs in {folder}", flush=True)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise InputError("sbatch: no such command; --slurm needs a machine from which Slurm takes jobs") from None
    logs = {row.experiment: folder / f"{i}.log" for i, row in enumerate(rows.values())}
    if done.returncode and not any(log.exists() for log in logs.values()):
        raise InputError(f"sbatch: {done.stderr.strip() or 'failed'}")
    return {name: log.read_text(encoding="utf-8") if log.exists() else "" for name, log in logs.items()}


def _settings(preset: Preset, name: str, row: Row, given: Sequence[str]) -> Iterator[str]:
    """Yield the -S words of a row's command: those given, and the files that the clone does not have."""
    overridden = {text.partition("=")[0] for text in given}
    yield from (word for text in given if text.partition("=")[0] not in PATHS for word in ("-S", text))
    for key in PATHS:
        if key not in row.settings:
            continue
        value = str(row.settings[key])
        if key in preset.rows[name]:
            if value != preset.rows[name][key]:
                raise InputError(f"{preset.file}: rows.{name}: {key}: give an absolute path, or one that git tracks")
        elif key in overridden or Path(value).is_absolute():
            yield from ("-S", f"{key}={value}")


def _cache() -> str:
    return subprocess.run(["dvc", "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
