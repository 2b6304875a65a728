"""Frozen work is done once, and what is learned from it is the same."""

import dataclasses

import numpy as np
import pytest
import torch

from reverse_perturbation.models.scgpt.cache import CachedTokens, cached
from reverse_perturbation.models.scgpt.checkpoint import load_checkpoint
from reverse_perturbation.models.scgpt.classifier import ScgptClassifier
from reverse_perturbation.models.scgpt.embed import embed_cells
from reverse_perturbation.models.scgpt.train import fit
from tests.models.scgpt.conftest import CONDITIONS, GENES, PARAMS, finetune_config

CPU = torch.device("cpu")
MODES = [("head", ["cls", "mean"]), ("head", ["cls", "genes"]), ("last_n", ["cls", "mean", "genes"])]


def build(checkpoint, adaptation="head", readout=("cls", "mean"), dtype="float32", limit_gb=1.0, mixing=1):
    torch.manual_seed(1)
    config = finetune_config(
        adaptation=adaptation,
        readout=list(readout),
        mixing=mixing,
        dropout=0.1,
        cache=PARAMS.finetune.cache.model_copy(update={"dtype": dtype, "limit_gb": limit_gb}),
    )
    return ScgptClassifier(load_checkpoint(checkpoint).model, torch.arange(GENES), len(CONDITIONS), config)


def keep(model, tokens, folder, checkpoint_sha256="abc"):
    return cached(model, tokens, folder=folder, checkpoint_sha256=checkpoint_sha256, device=CPU)


def course(model, task, tokens):
    """Train, and return the figures of each epoch and the log-probabilities of every cell."""
    config = model.config
    history = fit(model, dataclasses.replace(task, tokens=tokens), config, seed=0, epochs=4, device=CPU)
    outputs = embed_cells(model, tokens, np.arange(len(task.targets)), CONDITIONS, CPU)
    return [(e.exact_hit_at_1, e.mrr) for e in history], outputs.log_proba


@pytest.mark.parametrize(("adaptation", "readout"), MODES)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 1e-2)])
def test_what_is_learned_is_the_same(checkpoint, task, tmp_path, adaptation, readout, dtype, tolerance):
    """Rounding apart: a cell's states differ in the last bits between batches of different padding."""
    plain, kept = (build(checkpoint, adaptation, readout, dtype) for _ in range(2))
    figures, log_proba = course(plain, task, task.tokens)
    tokens = keep(kept, task.tokens, tmp_path)
    assert isinstance(tokens, CachedTokens)
    found, found_log_proba = course(kept, task, tokens)
    if dtype == "float32":
        assert found == figures
    assert np.abs(np.array(found) - figures).max() <= 0.002
    assert np.abs(found_log_proba - log_proba).max() <= tolerance


@pytest.mark.parametrize(("adaptation", "readout"), MODES)
def test_each_cell_is_computed_once_for_all_fits(checkpoint, task, tmp_path, monkeypatch, adaptation, readout):
    seen = []
    frozen = ScgptClassifier.frozen

    def counting(self, ids, values, padding):
        seen.append(len(ids))
        return frozen(self, ids, values, padding)

    monkeypatch.setattr(ScgptClassifier, "frozen", counting)
    for _ in range(2):
        model = build(checkpoint, adaptation, readout)
        course(model, task, keep(model, task.tokens, tmp_path))
    assert sum(seen) == len(task.targets)


@pytest.mark.parametrize("adaptation", ["lora", "full"])
def test_nothing_is_kept_where_the_first_layer_is_trained(checkpoint, task, tmp_path, adaptation):
    assert keep(build(checkpoint, adaptation), task.tokens, tmp_path) is task.tokens
    assert not list(tmp_path.iterdir())


def test_cells_drawn_anew_cannot_be_kept(checkpoint, task, tmp_path, capsys):
    assert keep(build(checkpoint, mixing=2), task.tokens, tmp_path) is task.tokens
    assert "cache: off, finetune.mixing, thinning or token_dropout" in capsys.readouterr().out


def test_the_size_is_announced_and_limited(checkpoint, task, tmp_path, capsys):
    """240 cells, a readout of 16 numbers, two bytes each."""
    model = build(checkpoint, readout=["cls"], dtype="float16", limit_gb=240 * 16 * 2 / 2**30)
    keep(model, task.tokens, tmp_path)
    assert "240 cells take 7.15e-06 GiB in float16 -> " in capsys.readouterr().out
    model = build(checkpoint, readout=["mean"], dtype="float16", limit_gb=240 * 16 * 2 / 2**30 * 0.999)
    assert keep(model, task.tokens, tmp_path) is task.tokens
    assert "more than finetune.cache.limit_gb" in capsys.readouterr().out
    assert len(list(tmp_path.iterdir())) == 1


def test_anything_else_has_a_file_of_its_own(checkpoint, task, tmp_path):
    keep(build(checkpoint), task.tokens, tmp_path)
    values = task.tokens.values.copy()
    values[7] += 1  # as another mask or another value input would do
    others = [
        (build(checkpoint), dataclasses.replace(task.tokens, values=values), "abc"),
        (build(checkpoint), task.tokens, "another"),
        (build(checkpoint, readout=["mean", "cls"]), task.tokens, "abc"),
        (build(checkpoint, readout=["genes"]), task.tokens, "abc"),
        (build(checkpoint, "last_n"), task.tokens, "abc"),
        (build(checkpoint, dtype="float16"), task.tokens, "abc"),
    ]
    for number, (model, tokens, sha256) in enumerate(others, start=2):
        keep(model, tokens, tmp_path, sha256)
        assert len(list(tmp_path.iterdir())) == number


def test_an_interrupted_computation_leaves_nothing(checkpoint, task, tmp_path, monkeypatch):
    def interrupted(self, ids, values, padding):
        raise KeyboardInterrupt

    monkeypatch.setattr(ScgptClassifier, "frozen", interrupted)
    model = build(checkpoint)
    with pytest.raises(KeyboardInterrupt):
        keep(model, task.tokens, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_made_again(checkpoint, task, tmp_path, capsys):
    whole = keep(build(checkpoint), task.tokens, tmp_path).states.copy()
    (file,) = tmp_path.glob("*/states.npy")
    file.write_bytes(file.read_bytes()[:-100])
    assert np.array_equal(keep(build(checkpoint), task.tokens, tmp_path).states, whole)
    assert "is damaged" in capsys.readouterr().out
