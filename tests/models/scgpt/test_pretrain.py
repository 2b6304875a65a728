"""Pretraining in domain."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from reverse_perturbation.data.screen.masked_screen import MaskedScreen
from reverse_perturbation.models.scgpt.encoder.backbone import ScgptBackbone
from reverse_perturbation.models.scgpt.encoder.checkpoint import ScgptCheckpoint, load_checkpoint, save_checkpoint
from reverse_perturbation.models.scgpt.pretrain import pretrain, provide
from tests.models.conftest import CPU, GENES, PARAMS


def test_pretraining_learns_without_labels(checkpoint, tokens):
    loaded = load_checkpoint(checkpoint)
    losses = []
    config = PARAMS.pretrain.model_copy(update={"epochs": 8, "batch_size": 16, "dropout": 0.0, "learning_rate": 0.01})
    pretrain(
        loaded.backbone,
        tokens,
        loaded.architecture,
        config,
        device=CPU,
        on_epoch=lambda epoch, loss: losses.append(loss),
    )
    assert losses[-1] < 0.6 * losses[0]


@pytest.fixture
def screen():
    """Cells in which each gene has a level of its own, 60 reference and 20 control cells."""
    rng = np.random.default_rng(0)
    counts = sp.csr_matrix(rng.poisson(np.arange(GENES), (80, GENES)).astype(np.float32))
    return MaskedScreen(
        cell_ids=np.array([f"c{i}" for i in range(80)], dtype=object),
        conditions=np.array(["A+ctrl", "B+ctrl"] * 40, dtype=object),
        parts=np.array(["reference"] * 60 + ["control"] * 20, dtype=object),
        counts=counts,
        totals=np.asarray(counts.sum(axis=1)).ravel(),
        genes=np.array([f"G{i}" for i in range(GENES)], dtype=object),
        tokens=np.array([f"G{i}" for i in range(GENES)], dtype=object),
    )


@pytest.fixture(params=[True, False], ids=["mvc", "no mvc"])
def binned(request, checkpoint, tmp_path):
    """A folder in the official layout of a model that says it was trained on bins, with dropout as the official one."""
    given = load_checkpoint(checkpoint)
    architecture = replace(given.architecture, input_style="binned", dropout=0.2, mvc=request.param)
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "given", ScgptBackbone(architecture, given.vocabulary), given.vocabulary, architecture)
    return tmp_path / "given"


def provided(binned, screen, epochs: int, **scgpt) -> ScgptCheckpoint:
    folder = binned.parent / "base"
    params = PARAMS.model_copy(
        update={
            "scgpt": PARAMS.scgpt.model_copy(update={"checkpoint": str(binned)} | scgpt),
            "pretrain": PARAMS.pretrain.model_copy(update={"epochs": epochs, "batch_size": 16}),
        }
    )
    provide(params, lambda: screen, folder)
    return load_checkpoint(folder)


def test_a_checkpoint_trained_on_bins_learns_to_read_log1p_and_keeps_what_it_knows(binned, screen, capsys):
    before, after = load_checkpoint(binned), provided(binned, screen, epochs=4)
    assert (before.architecture.input_style, after.architecture.input_style) == ("binned", "log1p")
    assert after.architecture == replace(before.architecture, input_style="log1p"), "args.json is otherwise as it was"
    assert after.vocabulary == before.vocabulary
    weights = after.backbone.state_dict()
    for name, tensor in before.backbone.state_dict().items():
        if name.startswith(("encoder.", "transformer_encoder.")):
            assert torch.equal(weights[name], tensor), name
    losses = [float(line.rsplit(" ", 1)[1]) for line in capsys.readouterr().out.splitlines() if "squared error" in line]
    assert losses[-1] < losses[0]
    untrained = provided(binned, screen, epochs=0).backbone.state_dict()
    for name in ("value_encoder.linear1.weight", "value_encoder.linear2.weight"):
        assert not torch.equal(weights[name], untrained[name]), f"{name} has learnt"
        assert not torch.equal(before.backbone.state_dict()[name], untrained[name]), f"{name} has started anew"


def test_the_values_it_reads_are_log1p_and_can_be_trained_on(binned, screen):
    taught = provided(binned, screen, epochs=1)
    values = taught.tokenizer(screen, PARAMS)(screen).values
    assert values == pytest.approx(screen.log1p().data)
    assert all(parameter.requires_grad for parameter in taught.backbone.parameters())


def test_a_checkpoint_that_reads_bins_stays_as_it_is(binned, screen):
    before, after = load_checkpoint(binned), provided(binned, screen, epochs=4, value_input="binned")
    assert after.architecture == before.architecture
    weights = after.backbone.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in before.backbone.state_dict().items())
