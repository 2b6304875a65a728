"""Experiments whose process was killed are removed from DVC's tables, those that run are not."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from reverse_perturbation.errors import InputError
from reverse_perturbation.storage import read_json
from reverse_perturbation.studies import leftovers
from reverse_perturbation.studies.runner import main

SETTINGS = ["-S", "mask=own", "-S", "pretrain.epochs=60", "second"]  # a stage that sleeps for a minute


def until(holds):
    for _ in range(300):
        if holds():
            return
        time.sleep(0.1)
    pytest.fail("nothing was started within 30 s")


def started(name):
    """The experiment of a name, when its process runs."""
    until(lambda: any(one.name == name and one.process() for one in leftovers.unfinished()))
    return next(one for one in leftovers.unfinished() if one.name == name)


def shown():
    return subprocess.run(["dvc", "exp", "show", "--csv"], check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
@pytest.mark.parametrize("queue", [False, True], ids=["temp", "queue"])
def test_a_killed_experiment_of_any_name_leaves_dvc_s_table(repository, capfd, queue):
    command = ["dvc", "exp", "run", "--queue" if queue else "--temp", "-n", "mine", *SETTINGS]
    with subprocess.Popen(command, start_new_session=True) as running:
        if queue:
            running.wait()
            subprocess.run(["dvc", "queue", "start"], check=True)
        mine = started("mine")
        leftovers.clear_dead()
        assert mine.process(), "it runs"
        with pytest.raises(InputError, match=rf"mine: process {mine.process()} is making it"):
            leftovers.clear("mine")
        if queue:
            (worker,) = Path(".dvc/tmp/exps/celery").glob("dvc-exp-worker-*.json")
            os.killpg(os.getpgid(read_json(worker)["pid"]), signal.SIGKILL)
            os.killpg(os.getpgid(mine.process()), signal.SIGKILL)
        else:
            os.killpg(running.pid, signal.SIGKILL)
    until(lambda: not mine.process())
    assert "mine" in shown(), "DVC takes it for a row that runs"
    assert main(["toy", "own"]) == 0
    assert "experiments: mine: removed what a killed process left of it\n" in capfd.readouterr().out
    assert "mine" not in shown()
    assert not list(leftovers.unfinished())


def test_an_experiment_that_dvc_still_sets_up_is_left_alone(repository, monkeypatch):
    folder = Path(".dvc/tmp/exps/standalone/tmp1").absolute()
    folder.mkdir(parents=True)
    about = Path(".dvc/tmp/exps/run/abc/abc.run")
    about.parent.mkdir(parents=True)
    about.write_text(f'{{"root_dir": "{folder}", "name": "mine"}}')
    leftovers.clear_dead()
    assert folder.exists()
    monkeypatch.setattr(leftovers, "STARTING", 0)
    leftovers.clear_dead()
    assert not folder.exists()
    assert not about.exists()
