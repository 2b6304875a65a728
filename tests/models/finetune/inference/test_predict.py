"""Inference in batches, and in shares of them."""

import numpy as np
import pytest

from reverse_perturbation.models.encoder.batches import INFERENCE_TOKENS, inference_batches
from reverse_perturbation.models.finetune.inference.predict import predict
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
