"""scripts/sweep.sh, with a stand-in for dvc that writes down what it is asked to run."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.test_settings import with_settings

ROOT = Path(__file__).parents[1]
STANDIN = """#!/usr/bin/env bash
# exp run is remembered as made, but for the name in FAILS; exp list tells what was made.
cd "$(dirname "$0")"
echo "$@" >> calls
case "$1 $2" in
  "exp list") cat made 2>/dev/null ;;
  "queue status")
    echo >> looks
    (( $(wc -l < looks) > ${BUSY:-0} )) && exit
    echo "af15798  a  04:21 AM   Running"
    seq 100000  # more than a pipe holds, as a reader that leaves early would notice
    ;;
  "exp run")
    name=$(sed 's/.* -n \\([^ ]*\\) .*/\\1/' <<< "$*")
    [[ $name != "${FAILS:-}" ]] && echo "$name" >> made ;;
esac
"""


@pytest.fixture
def sweep(tmp_path):
    (tmp_path / "dvc").write_text(STANDIN)
    (tmp_path / "dvc").chmod(0o755)

    def call(*arguments: str, **environment: str) -> tuple[subprocess.CompletedProcess, list[str]]:
        (tmp_path / "calls").unlink(missing_ok=True)
        path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            [ROOT / "scripts" / "sweep.sh", *arguments],
            env=os.environ | {"PATH": path, "POLL": "0"} | environment,
            capture_output=True,
            text=True,
        )
        calls = (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []
        return done, calls

    return call


def test_every_row_of_every_sweep_is_a_valid_experiment(sweep):
    done, calls = sweep("loss", "sampler", "adaptation", "library", "query", "mask", "seeds")
    assert done.returncode == 0, done.stderr
    rows = [line for line in calls if line.startswith("exp run")]
    assert len(rows) == len({line.split(" -n ")[1].split()[0] for line in rows}) == 34
    for line in rows:
        with_settings(dict(setting.split("=", 1) for setting in re.findall(r"-S (\S+)", line)))


def test_rows_that_failed_are_named_and_the_others_are_made(sweep):
    done, calls = sweep("library", FAILS="library-mean")
    assert done.returncode == 1
    assert done.stderr.strip() == "sweep: failed: library-mean"
    assert sum(line.startswith("exp run") for line in calls) == 7
    done, calls = sweep("library")
    assert [shlex.split(line)[4] for line in calls if line.startswith("exp run")] == ["library-mean"], "resumed"
    assert done.returncode == 0


def test_settings_behind_two_dashes_are_in_every_row(sweep):
    _, calls = sweep("mask", "--", "data.source=h5ad", "data.path=cells.h5ad")
    rows = [line for line in calls if line.startswith("exp run")]
    assert len(rows) == 3
    assert all(
        "--temp -n mask-" in line and "-S data.source=h5ad -S data.path=cells.h5ad -S mask=" in line for line in rows
    )


def test_workers_take_the_rows_from_the_queue(sweep):
    done, calls = sweep("-j", "2", "query")
    assert done.returncode == 0, done.stderr
    assert sum("exp run --queue" in line for line in calls) == 4
    assert "queue start -j 2" in calls


def test_rows_that_still_run_are_waited_for(sweep):
    done, calls = sweep("-j", "2", "query", BUSY="4")
    assert done.returncode == 0, done.stderr
    assert calls.count("queue status") == 4 + 3, "three looks in a row that find none"


@pytest.mark.parametrize("arguments", [(), ("losses",)])
def test_an_unknown_sweep_or_none_runs_nothing(sweep, arguments):
    done, calls = sweep(*arguments)
    assert done.returncode == 2
    assert "loss sampler adaptation library query mask seeds" in done.stderr
    assert not calls
