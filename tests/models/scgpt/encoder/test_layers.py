"""Packed cells, as on a GPU, give what padded ones give."""

import numpy as np
import pytest
import torch

from reverse_perturbation.models.scgpt.encoder import layers
from reverse_perturbation.models.scgpt.encoder.layers import LayerStack, Packed

LENGTHS = np.array([1, 2, 9, 5, 5])


@pytest.fixture
def stack():
    torch.manual_seed(0)
    stack = LayerStack(2, 16, 4, 24, dropout=0.0)
    for parameter in stack.parameters():  # zero biases would hide a bias put in the wrong place
        torch.nn.init.normal_(parameter, std=0.3)
    return stack


@pytest.fixture
def padding():
    return torch.from_numpy(np.arange(LENGTHS.max()) >= LENGTHS[:, None])


@pytest.fixture
def states(padding):
    return torch.randn(*padding.shape, 16, generator=torch.Generator().manual_seed(1))


def test_packed_cells_have_the_same_states_and_gradients(stack, padding, states, monkeypatch):
    found = {}
    for name, devices in {"padded": set(), "packed": {"cpu"}}.items():
        monkeypatch.setattr(layers, "PACKED", devices)
        stack.zero_grad()
        given = states.clone().requires_grad_()
        result = stack(given, padding)
        result[~padding].pow(3).sum().backward()
        found[name] = [result[~padding], given.grad, *(p.grad for p in stack.parameters())]
    for padded, packed in zip(*found.values(), strict=True):
        assert padded.abs().max() > 0
        assert torch.allclose(padded, packed, rtol=1e-4, atol=1e-5)


def test_what_stands_at_padding_reaches_no_cell(stack, padding, states, monkeypatch):
    monkeypatch.setattr(layers, "PACKED", {"cpu"})
    other = states.masked_fill(padding[:, :, None], 1e9)
    with torch.no_grad():
        assert torch.equal(stack(states, padding), stack(other, padding))


def test_a_packed_batch_has_the_tokens_of_each_cell_in_order(padding):
    packed = Packed(padding)
    numbered = torch.arange(padding.numel()).view(padding.shape)
    assert packed.offsets.tolist() == [0, 1, 3, 12, 17, 22]
    assert packed.offsets.dtype == torch.int32  # flash attention takes no other
    assert packed.pack(numbered).tolist() == numbered[~padding].tolist()
    assert torch.equal(packed.pad(packed.pack(numbered)), numbered.masked_fill(padding, 0))


def test_attention_dropout_acts_on_packed_cells_in_training(stack, padding, states, monkeypatch):
    monkeypatch.setattr(layers, "PACKED", {"cpu"})
    for layer in stack.layers:
        layer.self_attn.dropout.p = 0.5
    with torch.no_grad():
        assert torch.equal(stack.eval()(states, padding), stack(states, padding))
        stack.train()
        assert not torch.equal(stack(states, padding), stack(states, padding))


def test_half_precision_moves_packed_states_little(stack, padding, states, monkeypatch):
    monkeypatch.setattr(layers, "PACKED", {"cpu"})
    with torch.no_grad():
        whole = stack(states, padding)[~padding]
        with torch.autocast("cpu", torch.bfloat16):
            half = stack(states, padding)[~padding]
    assert half.dtype == torch.float32
    assert not torch.equal(half, whole)
    assert torch.cosine_similarity(half, whole).min() > 0.999


def test_norm_keeps_the_precision_of_its_input():
    norm = layers.Norm(8)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(norm(x), torch.nn.functional.layer_norm(x, (8,), norm.weight, norm.bias))
    with torch.autocast("cpu", torch.bfloat16):
        assert norm(x.bfloat16()).dtype == torch.bfloat16
