"""A run that is killed and started again ends with the weights of one that was left alone, bit for bit."""

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.models.scgpt.conftest import CONDITIONS, GENES, ONE, finetune_config

from reverse_perturbation.errors import InputError
from reverse_perturbation.models.finetune.network.classifier import ScgptClassifier
from reverse_perturbation.models.finetune.training.resume import resume_folder
from reverse_perturbation.models.finetune.training.train import fit
from reverse_perturbation.models.scgpt import train
from reverse_perturbation.models.scgpt.encoder.checkpoint import load_checkpoint
from reverse_perturbation.models.scgpt.encoder.tokenize import Tokens

# Everything that draws or remembers: dropout, cells drawn anew, a mean of the weights, a schedule in two parts.
CONFIG = finetune_config(
    epochs=5,
    patience=5,
    dropout=0.2,
    ema=0.7,
    probe_epochs=1,
    sampler="balanced",
    cells_per_condition=8,
    accumulation=2,
)


class Killed(Exception):
    """Stands for a kill where the process must live on."""


def run(checkpoint, task, state=None, config=CONFIG, **options):
    torch.manual_seed(1)
    model = ScgptClassifier(load_checkpoint(checkpoint).model, torch.arange(GENES), len(CONDITIONS), config)
    history = fit(model, task, config, seed=0, epochs=5, accelerator=ONE, state=state, **options)
    return [dataclasses.replace(epoch, seconds=0) for epoch in history], model.trainable_state()


def drawing(task):
    """The task with training cells in another order in each epoch, as drawn by the run's generator."""
    return dataclasses.replace(task, draw=lambda order: task.tokens.take(task.train + 3 * order.integers(0, 40)))


def same(a, b):
    assert a[0] == b[0] or str(a[0]) == str(b[0])  # NaN is not equal to itself
    assert a[1].keys() == b[1].keys()
    for name, tensor in a[1].items():
        assert torch.equal(tensor, b[1][name]), name


@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("epoch", [1, 3, 5])
def test_killed_after_an_epoch(checkpoint, task, tmp_path, epoch, refit, capsys):
    given = drawing(dataclasses.replace(task, validation=task.validation[:0]) if refit else task)

    def kill(found):
        if found.epoch == epoch:
            raise Killed

    with pytest.raises(Killed):
        run(checkpoint, given, tmp_path / "state.pt", on_epoch=kill)
    seen = []
    again = run(checkpoint, given, tmp_path / "state.pt", on_epoch=lambda found: seen.append(found.epoch))
    same(again, run(checkpoint, given))
    assert seen == [1, 2, 3, 4, 5], "the curves are whole"
    told = f"goes on after epoch {epoch - 1}"
    assert (told in capsys.readouterr().out) == (epoch > 1)


@pytest.mark.parametrize("step", [1, 2, 4])
def test_killed_within_an_epoch(checkpoint, task, tmp_path, step, monkeypatch):
    batches = train.training_batches
    calls = []

    def few(*given):
        calls.append(given)
        return batches(*given) if len(calls) != 3 else [*batches(*given)[:step], None]

    monkeypatch.setattr(train, "training_batches", few)
    with pytest.raises(TypeError):
        run(checkpoint, task, tmp_path / "state.pt")
    monkeypatch.undo()
    same(run(checkpoint, task, tmp_path / "state.pt"), run(checkpoint, task))


def test_a_run_that_had_ended_is_not_trained_again(checkpoint, task, tmp_path, monkeypatch):
    """The stage may be killed in the second of its two fits; patience had stopped this one early."""
    config = CONFIG.model_copy(update={"patience": 1, "head_learning_rate": 0.0001})
    first = run(checkpoint, task, tmp_path / "state.pt", config)
    assert len(first[0]) < 5
    monkeypatch.setattr(train, "_train_epoch", None)
    same(run(checkpoint, task, tmp_path / "state.pt", config), first)


def test_epoch_0_is_not_judged_twice(checkpoint, task, tmp_path):
    def kill(found):
        if found.epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        run(checkpoint, task, tmp_path / "state.pt", on_epoch=kill, include_untrained=True)
    again = run(checkpoint, task, tmp_path / "state.pt", include_untrained=True)
    assert [epoch.epoch for epoch in again[0]] == [0, 1, 2, 3, 4, 5]
    same(again, run(checkpoint, task, include_untrained=True))


def test_a_broken_state_is_named(checkpoint, task, tmp_path):
    (tmp_path / "state.pt").write_bytes(b"PK not a state")
    with pytest.raises(InputError, match=r"state\.pt: not readable .*delete it to start the fit anew"):
        run(checkpoint, task, tmp_path / "state.pt")


KILLED = """
import os, pickle, signal, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from reverse_perturbation.models.scgpt import train
from tests.models.scgpt import test_resume
folder, steps = Path(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
checkpoint, task = folder / "base", test_resume.read_task(folder / "task.npz")
count = 0
step = torch.optim.AdamW.step
def counted(self, *args, **kwargs):
    global count
    count += 1
    if count == steps:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *args, **kwargs)
torch.optim.AdamW.step = counted
history, weights = test_resume.run(checkpoint, task, folder / "state" / "fit.pt")
save_file(weights, folder / "weights.safetensors")
"""


def read_task(path):
    with np.load(path, allow_pickle=False) as found:
        tokens = Tokens(found["ids"], found["values"], found["offsets"], GENES + 1, GENES, -2)
        ids = np.array([f"c{i}" for i in range(240)], dtype=object)
        return drawing(
            train.TrainingData(ids, tokens, found["targets"], CONDITIONS, found["train"], found["validation"])
        )


@pytest.mark.slow
def test_kill_9_at_any_step(checkpoint, task, tmp_path):
    """A process of its own each time, killed by the kernel in this or that step, until it gets through."""
    (tmp_path / "base").symlink_to(checkpoint)
    t = task.tokens
    arrays = {"ids": t.ids, "values": t.values, "offsets": t.offsets}
    np.savez(tmp_path / "task.npz", targets=task.targets, train=task.train, validation=task.validation, **arrays)
    root = Path(__file__).parents[3]
    environment = os.environ | {"PYTHONPATH": f"{root / 'src'}:{root}", "OMP_NUM_THREADS": "1"}
    codes = []
    for steps in (1, 4, 2, 99):
        command = [sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path), str(steps)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        codes.append(done.returncode)
    assert codes == [-signal.SIGKILL] * 3 + [0], done.stderr
    assert "goes on after epoch" in done.stdout
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _, wanted = run(checkpoint, read_task(tmp_path / "task.npz"))
    finally:
        torch.set_num_threads(threads)
    found = load_file(tmp_path / "weights.safetensors")
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name


@pytest.fixture
def files(tmp_path):
    for name in ("cells", "split"):
        (tmp_path / name).write_text(name)
    return {name: tmp_path / name for name in ("cells", "split")}


def test_states_are_kept_until_done(tmp_path, files):
    def killed():
        with resume_folder(tmp_path / "resume", files, {"seed": 1}) as folder:
            folder.mkdir(parents=True)
            (folder / "fit.pt").write_bytes(b"1")
            (folder / ".left-by-a-kill").mkdir()
            raise Killed(folder)

    with pytest.raises(Killed) as found:
        killed()
    (folder,) = found.value.args
    with resume_folder(tmp_path / "resume", files, {"seed": 1}) as again:
        assert again == folder
        assert (again / "fit.pt").exists()
    assert not folder.exists()
    with resume_folder(tmp_path / "resume", files, {"seed": 1}):
        pass  # nothing was kept: nothing to delete


def test_another_run_has_another_folder(tmp_path, files, monkeypatch):
    def name(settings=None, files=files):
        with resume_folder(tmp_path, files, settings or {"seed": 1}) as folder:
            return folder

    first = name()
    assert name() == first
    assert name({"seed": 2}) != first
    moved = tmp_path / "moved"
    moved.write_text("cells")
    assert name(files=files | {"cells": moved}) == first, "contents count, not names"
    assert name(files={"cells": files["split"], "split": files["cells"]}) != first
    files["split"].write_text("another")
    assert name() != first
