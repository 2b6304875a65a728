"""Rows as tasks of a Slurm array, with a stand-in for sbatch that runs them on this machine, two at a time."""

import stat
import sys

import pytest

from reverse_perturbation.errors import InputError
from reverse_perturbation.studies.presets import load_preset
from reverse_perturbation.studies.runner import commit_of, main
from tests.studies.conftest import commit
from tests.studies.test_runner import content, rows

SBATCH = """#!{python}
import os, re, subprocess, sys
from concurrent.futures import ThreadPoolExecutor
options, script = sys.argv[1:-1], sys.argv[-1]
open({asked!r}, "a").write(" ".join(options) + chr(10))
if "--bad" in options:
    sys.exit("sbatch: error: invalid option --bad")
last = int(re.search("--array=0-([0-9]+)", " ".join(options))[1])
output = next(o for o in options if o.startswith("--output=")).removeprefix("--output=")

def task(i):
    with open(output.replace("%a", str(i)), "w") as log:
        environment = os.environ | {{"SLURM_ARRAY_TASK_ID": str(i)}}
        return subprocess.run(["bash", script], env=environment, stdout=log, stderr=log).returncode

with ThreadPoolExecutor(2) as pool:
    sys.exit(max(pool.map(task, range(last + 1))))
"""


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    """The file with the options of each call."""
    asked = tmp_path / "asked"
    command = tmp_path / "bin" / "sbatch"
    command.parent.mkdir()
    command.write_text(SBATCH.format(python=sys.executable, asked=str(asked)))
    command.chmod(command.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", str(command.parent), prepend=":")
    return asked


@pytest.mark.slow
def test_each_row_is_a_task_in_a_clone_and_comes_back(repository, sbatch, capfd):
    before = (repository / "copy.txt").read_text()
    path = repository / "experiments" / "toy.yaml"
    path.write_text(path.read_text().replace("targets:", "  none: {mask: none}\ntargets:"))
    commit()
    assert main(["toy", "--slurm=--gpus=1 --time=8:00:00", "-j", "2", "-S", "data.path=data/raw/cells.txt"]) == 1
    said = capfd.readouterr()
    assert said.err == "experiments: failed: toy-none: the mask none is refused\n"
    assert "--wait --requeue --array=0-2%2 --job-name=toy" in sbatch.read_text()
    assert "--gpus=1 --time=8:00:00" in sbatch.read_text()
    made = rows("data.path=data/raw/cells.txt")
    assert content(made["own"]) == "cells\nown\n"
    assert content(made["all"]) == "cells\nall_targets\n"
    assert commit_of(made["own"]) is not None
    assert (repository / "copy.txt").read_text() == before
    folder = repository / ".dvc/tmp/slurm/toy"
    assert [each.name for each in (folder / "clones").iterdir()] == ["toy-none"], "what failed can be looked at"
    assert main(["toy", "own", "all", "--slurm", "-S", "data.path=data/raw/cells.txt"]) == 0
    assert sbatch.read_text().count("\n") == 1, "rows that are made are not submitted again"


def test_what_cannot_be_submitted_is_told(repository, sbatch, monkeypatch):
    with pytest.raises(InputError, match=r"^sbatch: sbatch: error: invalid option --bad$"):
        main(["toy", "own", "--slurm=--bad"])
    sbatch.parent.joinpath("bin", "sbatch").unlink()
    with pytest.raises(InputError, match="sbatch: no such command; --slurm needs a machine"):
        main(["toy", "own", "--slurm"])


def test_a_row_s_own_file_must_be_in_its_clone(repository, sbatch):
    path = repository / "experiments" / "toy.yaml"
    path.write_text(path.read_text().replace("{mask: own}", "{data.path: data/raw/cells.txt}"))
    commit()
    assert load_preset("toy").rows["own"] == {"data.path": "data/raw/cells.txt"}
    with pytest.raises(InputError, match=r"rows\.own: data\.path: give an absolute path, or one that git tracks"):
        main(["toy", "own", "--slurm"])
    assert not sbatch.exists()
