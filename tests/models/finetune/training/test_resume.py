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

from reverse_perturbation.errors import InUseError
from reverse_perturbation.models.encoder.tokens import Tokens
from reverse_perturbation.models.finetune.training import train
from reverse_perturbation.models.finetune.training.resume import resume_folder
from reverse_perturbation.models.finetune.training.train import TrainingData, fit
from tests.models.conftest import CELL_IDS, CONDITIONS, GENES, ONE, build, finetune_config

# Everything that draws or remembers: dropout, synthetic cells, a mean of the weights, a schedule in two parts.
SETTINGS = {
    "schedule__epochs": 5,
    "schedule__patience": 5,
    "adaptation__dropout": 0.2,
    "optimizer__ema": 0.7,
    "schedule__probe_epochs": 1,
    "sampler__kind": "balanced",
    "sampler__cells_per_condition": 8,
    "optimizer__accumulation": 2,
}
CONFIG = finetune_config(**SETTINGS)


class Killed(Exception):
    """Stands for a kill where the process must live on."""


def run(checkpoint, data, state_path=None, config=CONFIG, **options):
    model = build(checkpoint, config)
    history = fit(model, data, config, seed=0, epochs=5, accelerator=ONE, state_path=state_path, **options)
    return [dataclasses.replace(epoch, seconds=0) for epoch in history], model.trainable_state()


def resampled(data):
    """The same with other training cells in each epoch, as drawn by the run's generator."""
    return dataclasses.replace(data, resample=lambda rng: data.tokens.take(data.train + 3 * rng.integers(0, 40)))


def same(a, b):
    assert a[0] == b[0] or str(a[0]) == str(b[0])  # NaN is not equal to itself
    assert a[1].keys() == b[1].keys()
    for name, tensor in a[1].items():
        assert torch.equal(tensor, b[1][name]), name


@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("epoch", [1, 3, 5])
def test_killed_after_an_epoch(checkpoint, data, tmp_path, epoch, refit, capsys):
    given = resampled(dataclasses.replace(data, validation=data.validation[:0]) if refit else data)

    def kill(found):
        if found.epoch == epoch:
            raise Killed

    with pytest.raises(Killed):
        run(checkpoint, given, tmp_path / "state.pt", on_epoch=kill)
    seen = []
    again = run(checkpoint, given, tmp_path / "state.pt", on_epoch=lambda found: seen.append(found.epoch))
    same(again, run(checkpoint, given))
    assert seen == [1, 2, 3, 4, 5], "the curves are whole"
    told = f"resumed after epoch {epoch - 1}"
    assert (told in capsys.readouterr().out) == (epoch > 1)


@pytest.mark.parametrize("step", [1, 2, 4])
def test_killed_within_an_epoch(checkpoint, data, tmp_path, step, monkeypatch):
    batches = train.training_batches
    calls = []

    def few(*given):
        calls.append(given)
        return batches(*given) if len(calls) != 3 else [*batches(*given)[:step], None]

    monkeypatch.setattr(train, "training_batches", few)
    with pytest.raises(TypeError):
        run(checkpoint, data, tmp_path / "state.pt")
    monkeypatch.undo()
    same(run(checkpoint, data, tmp_path / "state.pt"), run(checkpoint, data))


def test_a_run_that_had_ended_is_not_trained_again(checkpoint, data, tmp_path, monkeypatch):
    """The stage may be killed in the second of its two fits; patience had stopped this one early."""
    config = finetune_config(**SETTINGS | {"schedule__patience": 1, "optimizer__head_learning_rate": 0.0001})
    first = run(checkpoint, data, tmp_path / "state.pt", config)
    assert len(first[0]) < 5
    monkeypatch.setattr(train, "_train_epoch", None)
    same(run(checkpoint, data, tmp_path / "state.pt", config), first)


@pytest.mark.parametrize("place", [0, 40, 0.3, 0.6, -1])
def test_a_damaged_state_is_not_trained_on(checkpoint, data, tmp_path, place, capsys):
    """One flipped bit, in the checksum, in the archive's names, in numbers; and a file cut short."""

    def kill(found):
        if found.epoch == 3:
            raise Killed

    path = tmp_path / "state.pt"
    with pytest.raises(Killed):
        run(checkpoint, data, path, on_epoch=kill)
    content = bytearray(path.read_bytes())
    at = int(place * len(content)) if isinstance(place, float) else place
    content[at] ^= 4
    path.write_bytes(content if place != -1 else content[:-100])
    capsys.readouterr()
    again = run(checkpoint, data, path)
    assert f"{path}: damaged; this fit starts anew" in capsys.readouterr().out
    same(again, run(checkpoint, data))


KILLED = """
import os, pickle, signal, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from tests.models.finetune.training import test_resume
folder, steps = Path(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
checkpoint, data = folder / "base", test_resume.read_data(folder / "data.npz")
count = 0
step = torch.optim.AdamW.step
def counted(self, *args, **kwargs):
    global count
    count += 1
    if count == steps:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *args, **kwargs)
torch.optim.AdamW.step = counted
history, weights = test_resume.run(checkpoint, data, folder / "state" / "fit.pt")
save_file(weights, folder / "weights.safetensors")
"""


def read_data(path):
    with np.load(path, allow_pickle=False) as found:
        tokens = Tokens(found["ids"], found["values"], found["offsets"], GENES + 1, GENES, -2)
        parts = found["train"], found["validation"]
        return resampled(TrainingData(CELL_IDS, tokens, found["targets"], CONDITIONS, *parts))


@pytest.mark.slow
def test_kill_9_at_any_step(checkpoint, data, tmp_path):
    """A process of its own each time, killed by the kernel in this or that step, until it gets through."""
    (tmp_path / "base").symlink_to(checkpoint)
    t = data.tokens
    arrays = {"ids": t.ids, "values": t.values, "offsets": t.offsets}
    np.savez(tmp_path / "data.npz", targets=data.targets, train=data.train, validation=data.validation, **arrays)
    root = Path(__file__).parents[4]
    environment = os.environ | {"PYTHONPATH": f"{root / 'src'}:{root}", "OMP_NUM_THREADS": "1"}
    codes = []
    for steps in (1, 4, 2, 99):
        command = [sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path), str(steps)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        codes.append(done.returncode)
    assert codes == [-signal.SIGKILL] * 3 + [0], done.stderr
    assert "resumed after epoch" in done.stdout
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _, wanted = run(checkpoint, read_data(tmp_path / "data.npz"))
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


HOLDING = """
import sys, time
from pathlib import Path
from reverse_perturbation.models.finetune.training.resume import resume_folder
with resume_folder(Path(sys.argv[1]), {}, {}):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_told_who_holds_the_folder_until_that_one_is_killed(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLDING, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        for _ in range(2):
            held = rf"process {other.pid} on \S+ since 20\d\d-.*; wait for it"
            with pytest.raises(InUseError, match=held), resume_folder(tmp_path, {}, {}):
                pass
        with resume_folder(tmp_path, {}, {}, is_main_process=False) as folder:
            assert folder.is_dir(), "another process of the same run"
        other.kill()
    with resume_folder(tmp_path, {}, {}) as again:
        assert again == folder
    assert not folder.exists()
