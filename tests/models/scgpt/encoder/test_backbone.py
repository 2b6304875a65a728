"""Our layers compute what scGPT's do."""

import numpy as np
import pytest
import torch
from scgpt.model import TransformerModel

from reverse_perturbation.models.encoder.interface import set_dropout
from reverse_perturbation.models.encoder.tokens import Batch, Tokens
from reverse_perturbation.models.scgpt.encoder.backbone import Architecture, ScgptBackbone
from reverse_perturbation.models.scgpt.encoder.checkpoint import load_checkpoint

VOCABULARY = {f"G{i}": i for i in range(20)} | {"<pad>": 20, "<cls>": 21}
ARGS = {"nlayers": 3, "nheads": 4, "embsize": 32, "d_hid": 48, "dropout": 0.3, "MVC": True}


@pytest.fixture(scope="module")
def ours():
    torch.manual_seed(0)
    model = ScgptBackbone(Architecture.from_args(ARGS, "test"), VOCABULARY)
    for layer in model.transformer_encoder.layers:  # zero biases would hide a bias put in the wrong place
        for parameter in layer.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    set_dropout(model, 0.0)
    return model


@pytest.fixture(scope="module")
def upstream(ours):
    model = TransformerModel(
        22, 32, 4, 48, 3, vocab=VOCABULARY, dropout=0.0, pad_value=-2, do_mvc=True, n_input_bins=51
    )
    state = {
        name.replace("self_attn.Wqkv.", "self_attn.in_proj_"): tensor for name, tensor in ours.state_dict().items()
    }
    model.load_state_dict(state)
    return model


def states(model: ScgptBackbone, batch: Batch, last: int | None = None) -> torch.Tensor:
    return model.transform(model.embed(batch), batch.padding, last=last)


def upstreams(model: TransformerModel, batch: Batch) -> torch.Tensor:
    return model._encode(batch.ids, batch.values, src_key_padding_mask=batch.padding)


def cells() -> Tokens:
    """Cells of 0, 1, 5 and 20 genes."""
    rng = np.random.default_rng(0)
    lengths = [0, 1, 5, 20]
    ids = np.concatenate([rng.permutation(20)[:n] for n in lengths]).astype(np.int32)
    values = rng.uniform(0, 50, len(ids)).astype(np.float32)
    return Tokens(ids, values, np.cumsum([0, *lengths]), cls_id=21, pad_id=20, pad_value=-2)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")  # upstream's fused path in eval
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_parity_with_upstream(ours, upstream, mode):
    batch = cells().batch(np.arange(4))
    real = ~batch.padding
    for model in (ours, upstream):
        model.train(mode == "train")
    with torch.no_grad():
        a, b = states(ours, batch), upstreams(upstream, batch)
    # In eval PyTorch's fused path writes zeros at padding, which nobody reads.
    assert (a - b)[real].abs().max() <= 1e-5
    assert torch.isfinite(a).all()


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_parity_of_the_decoders(ours, upstream):
    batch = cells().batch(np.arange(4))
    with torch.no_grad():
        a, b = (
            m.eval()(batch.ids, batch.values, src_key_padding_mask=batch.padding, MVC=True) for m in (ours, upstream)
        )
    for name in ("mlm_output", "mvc_output", "cell_emb"):
        difference = (a[name] - b[name]).abs()
        assert (difference if name == "cell_emb" else difference[~batch.padding]).max() <= 1e-4


def test_parity_of_the_gradients(ours, upstream):
    batch = cells().batch(np.arange(4))
    for model, output in ((ours, states), (upstream, upstreams)):
        model.train()
        model.zero_grad()
        output(model, batch)[:, 0].pow(3).sum().backward()
    theirs = {n.replace("self_attn.in_proj_", "self_attn.Wqkv."): p.grad for n, p in upstream.named_parameters()}
    for name, parameter in ours.named_parameters():
        if parameter.grad is not None:
            assert torch.allclose(parameter.grad, theirs[name], rtol=1e-3, atol=1e-4), name


def test_a_cell_s_embedding_depends_on_the_cell_alone(ours):
    tokens = cells()
    ours.eval()
    with torch.no_grad():
        together = states(ours, tokens.batch(np.arange(4)))[:, 0]
        reversed_ = states(ours, tokens.batch(np.arange(4)[::-1].copy()))[:, 0].flip(0)
        alone = torch.cat([states(ours, tokens.batch(np.array([i])))[:, 0] for i in range(4)])
    assert (together - alone).abs().max() <= 1e-5
    assert (together - reversed_).abs().max() <= 1e-5


def test_layers_can_be_run_in_two_parts(ours):
    batch = cells().batch(np.arange(4))
    ours.eval()
    with torch.no_grad():
        whole = states(ours, batch)
        below = states(ours, batch, last=2)
        above = ours.transform(below, batch.padding, first=2)
    assert not torch.allclose(below, above)
    assert torch.equal(whole, above)


def test_dropout_is_in_attention_too_and_only_in_training(checkpoint, tokens):
    model = load_checkpoint(checkpoint).backbone
    batch = tokens.batch(np.arange(5))
    set_dropout(model, 0.5)
    for name, module in model.transformer_encoder.named_modules():
        if isinstance(module, torch.nn.Dropout) and not name.endswith("self_attn.dropout"):
            module.p = 0.0  # leaves the attention's own
    with torch.no_grad():
        model.eval()
        assert torch.equal(states(model, batch), states(model, batch))
        model.transformer_encoder.train()
        assert not torch.equal(states(model, batch), states(model, batch))


def test_building_twice_from_one_seed_gives_the_same_weights():
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        found.append(ScgptBackbone(Architecture.from_args(ARGS, "test"), VOCABULARY).state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
