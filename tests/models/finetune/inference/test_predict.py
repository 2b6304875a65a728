"""Inference in batches, and in shares of them."""

import numpy as np
import pytest
import torch

from reverse_perturbation.models.encoder.batches import INFERENCE_TOKENS, inference_batches
from reverse_perturbation.models.finetune.inference.predict import predict, predict_in_order
from tests.models.conftest import CPU, build, finetune_config


@pytest.mark.parametrize("processes", [3, 50])
def test_shares_of_the_batches_make_up_the_whole(checkpoint, data, monkeypatch, processes):
    """With more processes than batches too: those without one of their own repeat the first."""
    monkeypatch.setitem(INFERENCE_TOKENS, "cpu", 2**11)
    model = build(checkpoint, finetune_config())
    whole = predict(model, data.tokens, np.arange(240), CPU)
    assert 3 < len(inference_batches(np.arange(240), data.tokens.lengths, model.backbone.width, CPU)) < 50
    shares = [predict(model, data.tokens, np.arange(240), CPU, slice(i, None, processes)) for i in range(processes)]
    assert set(np.concatenate([order for order, *_ in shares])) == set(range(240))
    sorting = np.argsort(whole[0])
    for order, embedding, logits in shares:
        np.testing.assert_array_equal(embedding, whole[1][sorting][order])
        np.testing.assert_array_equal(logits, whole[2][sorting][order])


def test_results_come_in_the_order_of_the_rows(checkpoint, tokens, monkeypatch):
    monkeypatch.setitem(INFERENCE_TOKENS, "cpu", 2**11)
    model = build(checkpoint, finetune_config())
    rows = np.random.default_rng(0).permutation(240)[:50]
    embedding, logits = predict_in_order(model, tokens, rows, CPU)
    for i in (0, 7, 49):
        with torch.no_grad():
            alone = model.eval()(tokens.batch(rows[[i]]))
        assert embedding[i] == pytest.approx(alone.embedding[0].numpy(), abs=1e-5)
        assert logits[i] == pytest.approx(alone.logits[0].numpy(), abs=1e-5)
