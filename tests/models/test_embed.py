"""Predictions of every cell, in the order of the split."""

import numpy as np
import pytest
import torch

from reverse_perturbation.models.embed import embed_cells
from reverse_perturbation.models.encoder.batches import INFERENCE_TOKENS
from tests.models.conftest import CELL_IDS, CONDITIONS, ONE, build, finetune_config


def test_each_cell_has_the_row_of_its_id(checkpoint, tokens, monkeypatch):
    """Although cells of similar length are computed together."""
    monkeypatch.setitem(INFERENCE_TOKENS, "cpu", 2**11)
    model = build(checkpoint, finetune_config())
    found = embed_cells(model, tokens, CELL_IDS, CONDITIONS, ONE)
    assert list(found.cell_ids) == list(CELL_IDS)
    assert list(found.conditions) == CONDITIONS
    for i in (0, 100, 239):
        with torch.no_grad():
            alone = model(tokens.batch(np.array([i])))
        assert found.embedding[i] == pytest.approx(alone.embedding[0].numpy(), abs=1e-5)
        assert found.log_proba[i] == pytest.approx(alone.logits[0].log_softmax(0).numpy(), abs=1e-5)
    assert np.exp(found.log_proba).sum(axis=1) == pytest.approx(np.ones(240), abs=1e-5)


def test_a_model_without_a_head_gives_embeddings_alone(checkpoint, tokens):
    model = build(checkpoint, finetune_config(adaptation__mode="frozen", head__readout=["cls"]))
    found = embed_cells(model, tokens, CELL_IDS, CONDITIONS, ONE)
    assert found.embedding.shape == (240, 16)
    assert found.log_proba is None
    assert found.conditions is None
