"""Each mode trains the weights it names, really, and no others."""

import numpy as np
import peft
import pytest
import torch

from reverse_perturbation.errors import InputError
from reverse_perturbation.models.finetune.network.classifier import EncoderClassifier
from reverse_perturbation.models.finetune.training.train import fit
from reverse_perturbation.sections import Lora
from tests.models.conftest import GENES, ONE, build, finetune_config

LAYER = "backbone.transformer_encoder.layers."


def classifier(checkpoint, **changes) -> EncoderClassifier:
    return build(checkpoint, finetune_config(**changes)).eval()


def logits(model: EncoderClassifier, tokens) -> torch.Tensor:
    with torch.no_grad():
        output = model(tokens.batch(np.arange(60)))
    assert output.logits is not None
    return output.logits


def in_backbone(mode: str, name: str) -> bool:
    """What the documentation of a mode promises."""
    if mode == "last_n":
        return name.startswith(LAYER + "2.")
    if mode == "lora":
        return ".lora_" in name and name.startswith(LAYER)
    return mode == "full" and name.startswith(
        ("backbone.encoder.", "backbone.value_encoder.", "backbone.transformer_encoder.")
    )


@pytest.mark.parametrize("mode", ["head", "last_n", "lora", "full"])
def test_gradients_reach_what_the_mode_names_and_nothing_else(checkpoint, tokens, mode):
    model = classifier(checkpoint, adaptation__mode=mode).train()
    # A LoRA starts with B = 0, which blocks the gradient of A: move it off.
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    output = model(tokens.batch(np.arange(60)))
    torch.nn.functional.cross_entropy(output.logits, torch.arange(60) % 3).backward()
    for name, parameter in model.named_parameters():
        expected = in_backbone(mode, name) or not name.startswith("backbone.")
        assert parameter.requires_grad == expected, name
        if not expected:
            assert parameter.grad is None, name
        elif name == "backbone.encoder.embedding.weight":
            assert parameter.grad[:GENES].abs().sum() > 0
        else:
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("mode", ["head", "last_n", "lora", "full"])
def test_training_changes_those_weights_and_leaves_the_rest_bit_for_bit(checkpoint, data, mode):
    model = classifier(checkpoint, adaptation__mode=mode)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config = finetune_config(adaptation__mode=mode)
    fit(model, data, config, seed=0, epochs=1, accelerator=ONE)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert any(name.startswith("backbone.") for name in trained) == (mode != "head")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) != (name in trained), name


@pytest.mark.parametrize("target", ["qkv", "out_proj", "linear1", "linear2"])
@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_each_adapter_works_in_eval(checkpoint, tokens, target, guard):
    """PyTorch's own encoder skips adapters here (reference: pytorch #128413)."""
    lora = Lora(rank=2, alpha=4.0, dropout=0.0, targets=[target])
    model = classifier(checkpoint, adaptation__mode="lora", adaptation__lora=lora)
    start = logits(model, tokens)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    with guard():
        moved = model(tokens.batch(np.arange(60))).logits
    assert (moved - start).abs().max() > 1e-3
    model.train()
    with torch.no_grad():
        assert torch.allclose(model(tokens.batch(np.arange(60))).logits, moved, atol=1e-6)


def test_lora_starts_as_the_frozen_model(checkpoint, tokens):
    plain, adapted = classifier(checkpoint, adaptation__mode="head"), classifier(checkpoint, adaptation__mode="lora")
    adapted.readout.load_state_dict(plain.readout.state_dict())
    adapted.head.load_state_dict(plain.head.state_dict())
    assert torch.equal(logits(plain, tokens), logits(adapted, tokens))


def test_lora_does_not_touch_the_value_encoder(checkpoint):
    """Its layers are called linear1 and linear2 too."""
    model = classifier(checkpoint, adaptation__mode="lora")
    adapted = {n for n, m in model.named_modules() if isinstance(m, peft.tuners.lora.LoraLayer)}
    assert len(adapted) == 3 * 4
    assert all(name.startswith(LAYER) for name in adapted)


def test_more_layers_than_there_are(checkpoint):
    with pytest.raises(InputError, match=r"finetune\.adaptation\.last_layers: 4, but the checkpoint has 3 layers"):
        classifier(checkpoint, adaptation__mode="last_n", adaptation__last_layers=4)
