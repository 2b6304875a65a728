"""Each mode trains the weights it names, really, and no others."""

import numpy as np
import peft
import pytest
import torch
from tests.models.scgpt.conftest import CONDITIONS, GENES, ONE, finetune_config

from reverse_perturbation.config import Lora
from reverse_perturbation.errors import InputError
from reverse_perturbation.models.finetune.network.adapters import merge_lora
from reverse_perturbation.models.finetune.network.classifier import ScgptClassifier, load_classifier, save_classifier
from reverse_perturbation.models.finetune.training.train import fit
from reverse_perturbation.models.scgpt.encoder.backbone import SelfAttention
from reverse_perturbation.models.scgpt.encoder.checkpoint import load_checkpoint

LAYER = "backbone.transformer_encoder.layers."


def build(checkpoint, **changes) -> ScgptClassifier:
    torch.manual_seed(1)
    model = ScgptClassifier(
        load_checkpoint(checkpoint).model, torch.arange(GENES), len(CONDITIONS), finetune_config(**changes)
    )
    return model.eval()


def logits(model: ScgptClassifier, tokens) -> torch.Tensor:
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
    model = build(checkpoint, adaptation=mode).train()
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
def test_training_changes_those_weights_and_leaves_the_rest_bit_for_bit(checkpoint, task, mode):
    model = build(checkpoint, adaptation=mode)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config = finetune_config(adaptation=mode)
    fit(model, task, config, seed=0, epochs=1, accelerator=ONE)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert any(name.startswith("backbone.") for name in trained) == (mode != "head")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) != (name in trained), name


@pytest.mark.parametrize("target", ["qkv", "out_proj", "linear1", "linear2"])
@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_each_adapter_works_in_eval(checkpoint, tokens, target, guard):
    """PyTorch's own encoder skips adapters here (reference: pytorch #128413)."""
    lora = Lora(rank=2, alpha=4.0, dropout=0.0, targets=[target])
    model = build(checkpoint, adaptation="lora", lora=lora)
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
    plain, adapted = build(checkpoint, adaptation="head"), build(checkpoint, adaptation="lora")
    adapted.readout.load_state_dict(plain.readout.state_dict())
    adapted.head.load_state_dict(plain.head.state_dict())
    assert torch.equal(logits(plain, tokens), logits(adapted, tokens))


def test_lora_does_not_touch_the_value_encoder(checkpoint):
    """Its layers are called linear1 and linear2 too."""
    model = build(checkpoint, adaptation="lora")
    adapted = {n for n, m in model.named_modules() if isinstance(m, peft.tuners.lora.LoraLayer)}
    assert len(adapted) == 3 * 4
    assert all(name.startswith(LAYER) for name in adapted)


@pytest.mark.parametrize("mode", ["frozen", "head", "last_n", "lora", "full"])
def test_saved_and_loaded_gives_the_same_answers(checkpoint, task, tokens, tmp_path, mode):
    changes = {"adaptation": mode} | ({"readout": ["cls", "mean"]} if mode == "frozen" else {})
    model = build(checkpoint, **changes)
    if mode != "frozen":
        fit(model, task, finetune_config(**changes), seed=0, epochs=1, accelerator=ONE)
    save_classifier(
        tmp_path / "model",
        {"selection": model, "final": model},
        CONDITIONS,
        load_checkpoint(checkpoint),
        finetune_config(**changes),
    )
    loaded, conditions = load_classifier(tmp_path / "model", "final", load_checkpoint(checkpoint))
    assert conditions == CONDITIONS
    batch = tokens.batch(np.arange(60))
    with torch.no_grad():
        ours, theirs = model.eval()(batch), loaded(batch)
    assert torch.equal(ours.embedding, theirs.embedding)
    assert mode == "frozen" or torch.equal(ours.logits, theirs.logits)
    if mode == "lora":
        merge_lora(loaded.backbone)
        with torch.no_grad():
            assert torch.allclose(loaded(batch).logits, ours.logits, atol=1e-5)


@pytest.mark.parametrize("mode", ["frozen", "head", "last_n", "lora", "full"])
def test_dropout_is_where_something_is_trained(checkpoint, mode):
    lora = Lora(rank=2, alpha=4.0, dropout=0.1, targets=["qkv"])
    model = build(checkpoint, adaptation=mode, dropout=0.3, lora=lora)
    found = {name: m.p for name, m in model.backbone.named_modules() if isinstance(m, torch.nn.Dropout)}
    found |= {name: m.dropout for name, m in model.backbone.named_modules() if isinstance(m, SelfAttention)}
    assert len(found) >= 3 * 4 + 1
    for name, p in found.items():
        last = name.startswith("transformer_encoder.layers.2.")
        wanted = 0.1 if "lora" in name else 0.3 if mode in ("lora", "full") or (mode == "last_n" and last) else 0.0
        assert p == wanted, name


@pytest.mark.parametrize(
    ("mode", "backbone"),
    # width 16: a layer is 3 * 16 * 17 (qkv) + 3 * 16 * 17 (out_proj, linear1, linear2) + 2 * 2 * 16 (norms) = 1,696;
    # the encoders 15 * 16 + 32 (genes) and 2 * 16 + 16 * 17 + 32 (values); a LoRA of rank 2 on qkv 2 * (16 + 48)
    [("frozen", 0), ("head", 0), ("last_n", 1696), ("lora", 3 * 128), ("full", 3 * 1696 + 272 + 336)],
)
def test_what_is_trained_is_counted_by_hand(checkpoint, mode, backbone):
    lora = Lora(rank=2, alpha=4.0, dropout=0.0, targets=["qkv"])
    model = build(checkpoint, adaptation=mode, lora=lora, readout=["cls"])
    head = 0 if mode == "frozen" else 17 * 8 + 9 * 3
    assert model.trainable_parameters() == {"backbone": backbone, "head": head}


def test_the_checkpoint_s_own_model_stays_as_it_is(checkpoint, task):
    """Every fit starts from it."""
    loaded, config = load_checkpoint(checkpoint), finetune_config(adaptation="full", dropout=0.3)
    before = {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}
    fit(ScgptClassifier(loaded.model, torch.arange(GENES), 3, config), task, config, seed=0, epochs=1, accelerator=ONE)
    assert all(torch.equal(tensor, before[name]) for name, tensor in loaded.model.state_dict().items())
    assert {m.p for m in loaded.model.modules() if isinstance(m, torch.nn.Dropout)} == {loaded.architecture.dropout}


def test_more_layers_than_there_are(checkpoint):
    with pytest.raises(InputError, match=r"finetune\.last_layers: 4, but the checkpoint has 3 layers"):
        build(checkpoint, adaptation="last_n", last_layers=4)


def test_a_frozen_model_does_without_a_readout_that_would_have_to_be_trained(checkpoint, tokens):
    whole = build(checkpoint, adaptation="frozen", readout=["cls", "mean", "genes"])
    assert whole.trainable_parameters() == {"backbone": 0, "head": 0}
    plain = build(checkpoint, adaptation="frozen", readout=["cls", "mean"])
    batch = tokens.batch(np.arange(10))
    assert torch.equal(whole(batch).embedding, plain(batch).embedding)
    with pytest.raises(InputError, match=r"finetune\.readout: 'genes'.*add cls or mean"):
        build(checkpoint, adaptation="frozen", readout=["genes"])


def test_a_model_belongs_to_its_checkpoint(checkpoint, tmp_path):
    model = build(checkpoint)
    config = finetune_config()
    save_classifier(
        tmp_path / "model", {"selection": model, "final": model}, CONDITIONS, load_checkpoint(checkpoint), config
    )
    other = tmp_path / "other"
    other.mkdir()
    for file in checkpoint.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    (other / "args.json").write_text((other / "args.json").read_text() + "\n")
    with pytest.raises(InputError, match="trained from another checkpoint"):
        load_classifier(tmp_path / "model", "final", load_checkpoint(other))
    (tmp_path / "model" / "final.safetensors").unlink()
    with pytest.raises(InputError, match=r"final\.safetensors is missing"):
        load_classifier(tmp_path / "model", "final", load_checkpoint(checkpoint))
