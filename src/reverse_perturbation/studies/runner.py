"""Make the rows of a preset as DVC experiments in folders of their own, then write its report.

The working tree and its results stay as they are. A row that was made from this commit with the same settings is left
as it is, so an interrupted call is resumed by repeating it.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from dvc.api import DVCFileSystem
from dvc.dependency import ParamsDependency
from dvc.repo import Repo
from dvc.stage import Stage
from ruamel.yaml import YAML

from reverse_perturbation.errors import InputError, listed
from reverse_perturbation.report.markdown import markdown
from reverse_perturbation.studies import leftovers, presets, reports, slurm
from reverse_perturbation.studies.presets import Preset, Row
from reverse_perturbation.studies.reports import MadeRow, git
from reverse_perturbation.studies.stage_times import StageTimes

POLL = 5.0  # seconds between two looks at DVC's queue
IDLE_LOOKS = 3  # a row on its way from the queue to a worker is in neither for a moment
ALONE_LOOKS = 12  # rows that wait with no worker alive are not made
COMPARING = {"compare", "report"}  # targets of rows that have a comparison of their own


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0 when every selected row is made, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="reverse-perturbation experiments", description=__doc__)
    parser.add_argument("preset", nargs="?", help="file of experiments/ without its ending; none: list them")
    parser.add_argument("rows", nargs="*", metavar="ROW", help="rows to run, * and ? allowed; none: all")
    parser.add_argument("-S", action="append", default=[], metavar="KEY=VALUE", dest="set", help="setting of every row")
    parser.add_argument(
        "-j", type=int, default=0, metavar="N", dest="workers", help="N rows at a time, by DVC's queue or Slurm"
    )
    options = "a Slurm job a row, with more options of sbatch: --slurm='--gpus=1 --time=8:00:00'"
    parser.add_argument("--slurm", nargs="?", const="", metavar="OPTIONS", help=options)
    parser.add_argument("--force", action="store_true", help="run rows again; stages still come from DVC's run-cache")
    parser.add_argument("--report", action="store_true", help="only write the report or table, from rows already run")
    parser.add_argument("--rehearse", action="store_true", help="the same stages on simulated cells and random weights")
    args = parser.parse_args(argv)
    if args.workers < 0:
        parser.error("-j: give 1 worker or more")
    if args.preset is None:
        _list()
        return 0
    preset = presets.load_preset(args.preset, presets.parse_overrides(args.set), rehearsed=args.rehearse)
    if args.rehearse:
        # By name, as it imports torch, which takes seconds.
        import_module("reverse_perturbation.studies.rehearsal").provide_checkpoint()
    names = presets.select(preset.rows, args.rows, preset.file)
    rows = {name: locate(row) for name, row in presets.resolve(preset).items()}
    if dirty := uncommitted():
        raise InputError(f"uncommitted changes in {dirty}: commit them first, so that results belong to a commit")
    leftovers.clear_dead()
    jobs = None if args.slurm is None else partial(slurm.run, preset, given=args.set, options=args.slurm)
    failed = {} if args.report else make({name: rows[name] for name in names}, args.workers, args.force, jobs)
    for experiment, reason in failed.items():
        print(f"experiments: failed: {experiment}: {reason}", file=sys.stderr)
    complete = write_report(preset, rows) if preset.report else print_table(rows)
    return 1 if failed or (args.report and not complete) else 0


def _list() -> None:
    for name in presets.preset_names():
        preset = presets.load_preset(name)
        print(f"{name}: {len(preset.rows)} row{'s' * (len(preset.rows) != 1)}. {preset.description}")


def locate(row: Row) -> Row:
    """Make paths absolute that git does not track: an experiment in a folder of its own would not find them.

    Raises
    ------
    InputError
        If one does not exist.
    """
    settings = dict(row.settings)
    tracked = git("ls-files").splitlines()
    for key in presets.PATHS:
        value = presets.get(row.content, key)
        value = os.path.expanduser(value)
        if not Path(value).exists():
            raise InputError(f"{key}: {value}: no such file; fetch it (data/raw/README.md) or set -S {key}=PATH")
        if not any(name == value or name.startswith(f"{value}/") for name in tracked):
            settings[key] = os.path.abspath(value)
    return presets.with_settings(row, settings)


def uncommitted() -> str:
    """Return the files that differ from HEAD, reports of presets aside; empty if there are none.

    New files count among code and presets: an experiment in a folder of its own would lack them.
    """
    names = [*presets.preset_names(), reports.OVERVIEW, *map("{}_rehearsal".format, presets.preset_names())]
    written = [f":!{reports.FOLDER / name}{end}" for name in names for end in (".md", ".json", "/")]
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", *written).splitlines()
    files = [line.split(maxsplit=1)[1] for line in changed]
    files += git("ls-files", "--others", "--exclude-standard", "--", "src", presets.FOLDER.as_posix()).splitlines()
    return listed(files, 3)


def make(
    rows: Mapping[str, Row], workers: int = 0, force: bool = False, jobs: Callable[..., dict[str, str]] | None = None
) -> dict[str, str]:
    """Make rows, one after the other, through DVC's queue, or as jobs.

    Parameters
    ----------
    rows
        To be made, by their names in the preset.
    workers
        Of the queue, or jobs at a time; 0: no queue, any number of jobs.
    force
        Make also those that were made before.
    jobs
        Makes rows and returns what each printed, by experiment; None: made here.

    Returns
    -------
    dict
        Experiment of each row that failed -> why, as far as it is known.
    """
    said: dict[str, str] = {}
    submitted: dict[str, Row] = {}
    for number, (name, row) in enumerate(rows.items(), 1):
        start = f"experiments: {number}/{len(rows)} {row.experiment}"
        if not force and commit_of(row):
            print(f"{start}: already run", flush=True)
            continue
        print(start, flush=True)
        leftovers.clear(row.experiment)
        if jobs:
            submitted[name] = row
            continue
        settings = [f"{key}={json.dumps(value)}" for key, value in row.settings.items()]
        command = ["dvc", "exp", "run", "--queue" if workers else "--temp", "-n", row.experiment]
        said[row.experiment] = _run([*command, *(word for s in settings for word in ("-S", s)), *row.targets])
    if jobs and submitted:
        said = jobs(rows=submitted, at_once=workers)
    elif workers and said:
        _run(["dvc", "queue", "start", "-j", str(workers)])
        _wait(said)
    failed = [row.experiment for row in rows.values() if row.experiment in said and not commit_of(row)]
    return {name: _reason(said[name] + (_log(name) if workers and not jobs else "")) for name in failed}


def commit_of(row: Row) -> str | None:
    """Return the commit of a row's experiment, None unless it was made from HEAD with these settings to its targets."""
    head = git("rev-parse", "HEAD")
    ref = f"refs/exps/{head[:2]}/{head[2:]}/{row.experiment}"
    commit = git("for-each-ref", "--format=%(objectname)", ref)
    if not commit or YAML(typ="safe", pure=True).load(git("show", f"{commit}:params.yaml")) != row.content:
        return None
    with Repo(rev=commit) as repo:
        targets: Sequence[str | None] = row.targets or [None]
        stages = {stage for target in targets for stage in repo.stage.collect(target, with_deps=True)}
        return commit if all(_is_done(stage, repo) for stage in stages) else None


def _is_done(stage: Stage, repo: Repo) -> bool:
    """Whether dvc.lock of a revision records a stage with the parameters, code and inputs of that revision."""
    for dependency in stage.deps:
        if isinstance(dependency, ParamsDependency):
            if dependency.status():
                return False
            continue
        if dependency.is_in_repo:
            dependency.fs = repo.dvcfs  # git's files and DVC's, as the revision has them
        if dependency.changed_checksum():
            return False
    return not stage.cmd_changed and all(out.hash_info for out in stage.outs)


def _run(command: Sequence[str]) -> str:
    """Run a command and return its output, which also passes through; say what each stage took.

    Python looks in `src` of the folder it starts in first: the stages of an experiment with a folder of its own run
    the code that is there, not that of the working tree, which may change in the meantime.
    """
    lines, times = [], StageTimes()
    path = os.pathsep.join(["src", *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": path}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as running:
        assert running.stdout is not None
        for line in running.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            lines.append(line)
            times.see(line)
    if took := str(times):
        print(f"experiments: {took}", flush=True)
    return "".join(lines)


def _wait(experiments: Mapping[str, Any]) -> None:
    """Wait until none of the experiments is queued or running, or no worker is left to run them."""
    waiting = re.compile(rf"\b({'|'.join(map(re.escape, experiments))})\s.*\b(Queued|Running)\s*$", flags=re.M)
    idle = alone = 0
    while idle < IDLE_LOOKS and alone < ALONE_LOOKS:
        time.sleep(POLL)
        status = subprocess.run(["dvc", "queue", "status"], capture_output=True, text=True, check=False).stdout
        idle = 0 if waiting.search(status) else idle + 1
        alone = alone + 1 if "0 active, 0 idle" in status else 0


def _log(experiment: str) -> str:
    done = subprocess.run(["dvc", "queue", "logs", experiment], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def _reason(output: str) -> str:
    """Return the line that says why a run failed: the stage's own, else DVC's."""
    for start in ("error: ", "ERROR: "):
        if lines := [line for line in output.splitlines() if line.startswith(start)]:
            return lines[-1].removeprefix(start)
    return "no reason given"


def made_rows(rows: Mapping[str, Row]) -> dict[str, MadeRow | None]:
    """Return what was made of each row, None of one that is not made."""
    commits = {name: commit_of(row) for name, row in rows.items()}
    return {
        name: MadeRow(rows[name].params, DVCFileSystem(rev=commit)) if commit else None
        for name, commit in commits.items()
    }


def print_table(rows: Mapping[str, Row]) -> bool:
    """Print the comparisons of the rows that are made, and say whether all of them are.

    `dvc exp show` also has rows of killed processes, with the figures of the branch, and in each row the branch's
    figures of stages that are not among its targets.
    """
    made = made_rows(rows)
    compared = {
        name: row.comparison
        for name, row in made.items()
        if row and COMPARING.intersection(rows[name].targets or COMPARING)
    }
    if compared:
        print(f"mrr on the query cells, means over training seeds:\n\n{markdown(reports.rows_table(compared))}\n")
    if missing := [name for name, row in made.items() if row is None]:
        print(f"experiments: not yet run: {', '.join(missing)}")
    return not missing


def write_report(preset: Preset, rows: Mapping[str, Row]) -> bool:
    """Write a preset's report if all of its rows are made; say so, or which are not."""
    assert preset.report is not None
    found = made_rows(rows)
    made = {name: row for name, row in found.items() if row}
    if missing := [name for name in found if name not in made]:
        print(f"experiments: no report before all rows of {preset.name} have run; not yet: {', '.join(missing)}")
        return False
    about = reports.provenance(preset, rows)
    import_module(f"reverse_perturbation.studies.{preset.report}").write(preset, made, about)
    print(f"experiments: {reports.FOLDER / preset.name}.md and .json")
    return True
