"""The classifier: dropout and trained weights by mode, and the way to disk and back."""

import numpy as np
import peft
import pytest
import torch

from reverse_perturbation.errors import InputError
from reverse_perturbation.models.finetune.network.classifier import EncoderClassifier, load_classifier, save_classifier
from reverse_perturbation.models.finetune.training.train import fit
from reverse_perturbation.models.scgpt.encoder.checkpoint import load_checkpoint
from reverse_perturbation.sections import Lora
from reverse_perturbation.storage import read_json
from tests.models.conftest import CONDITIONS, GENES, ONE, build, finetune_config


def classifier(checkpoint, **changes) -> EncoderClassifier:
    return build(checkpoint, finetune_config(**changes)).eval()


@pytest.mark.parametrize("mode", ["frozen", "head", "last_n", "lora", "full"])
def test_saved_and_loaded_it_predicts_the_same(checkpoint, data, tokens, tmp_path, mode):
    changes = {"adaptation__mode": mode} | ({"head__readout": ["cls", "mean"]} if mode == "frozen" else {})
    model = classifier(checkpoint, **changes)
    if mode != "frozen":
        fit(model, data, finetune_config(**changes), seed=0, epochs=1, accelerator=ONE)
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
        for module in loaded.backbone.modules():
            if isinstance(module, peft.tuners.lora.LoraLayer):
                module.merge()
        with torch.no_grad():
            assert torch.allclose(loaded(batch).logits, ours.logits, atol=1e-5)


@pytest.mark.parametrize("mode", ["frozen", "head", "last_n", "lora", "full"])
def test_dropout_is_where_something_is_trained(checkpoint, mode):
    lora = Lora(rank=2, alpha=4.0, dropout=0.1, targets=["qkv"])
    model = classifier(checkpoint, adaptation__mode=mode, adaptation__dropout=0.3, adaptation__lora=lora)
    found = {name: m.p for name, m in model.backbone.named_modules() if isinstance(m, torch.nn.Dropout)}
    assert len(found) >= 3 * 4 + 1
    assert sum(name.endswith("self_attn.dropout") for name in found) == 3
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
    model = classifier(checkpoint, adaptation__mode=mode, adaptation__lora=lora, head__readout=["cls"])
    head = 0 if mode == "frozen" else 17 * 8 + 9 * 3
    assert model.trainable_parameters() == {"backbone": backbone, "head": head}


def test_the_checkpoint_s_own_model_stays_as_it_is(checkpoint, data):
    """Every fit starts from it."""
    loaded, config = load_checkpoint(checkpoint), finetune_config(adaptation__mode="full", adaptation__dropout=0.3)
    before = {name: tensor.clone() for name, tensor in loaded.backbone.state_dict().items()}
    model = EncoderClassifier(loaded.backbone, torch.arange(GENES), 3, config)
    fit(model, data, config, seed=0, epochs=1, accelerator=ONE)
    assert all(torch.equal(tensor, before[name]) for name, tensor in loaded.backbone.state_dict().items())
    assert {m.p for m in loaded.backbone.modules() if isinstance(m, torch.nn.Dropout)} == {loaded.architecture.dropout}


def test_a_frozen_model_does_without_a_readout_that_would_have_to_be_trained(checkpoint, tokens):
    whole = classifier(checkpoint, adaptation__mode="frozen", head__readout=["cls", "mean", "genes"])
    assert whole.trainable_parameters() == {"backbone": 0, "head": 0}
    plain = classifier(checkpoint, adaptation__mode="frozen", head__readout=["cls", "mean"])
    batch = tokens.batch(np.arange(10))
    assert torch.equal(whole(batch).embedding, plain(batch).embedding)
    with pytest.raises(InputError, match=r"finetune\.head\.readout: 'genes'.*add cls or mean"):
        classifier(checkpoint, adaptation__mode="frozen", head__readout=["genes"])


@pytest.mark.parametrize("finding", [None, "the selection fit ended at chance: ..."])
def test_what_was_found_in_training_is_saved_with_the_model(checkpoint, tmp_path, finding):
    model, config = classifier(checkpoint), finetune_config()
    fits = {"selection": model, "final": model}
    save_classifier(tmp_path / "model", fits, CONDITIONS, load_checkpoint(checkpoint), config, finding)
    assert read_json(tmp_path / "model" / "config.json")["finding"] == finding


def test_a_model_belongs_to_its_checkpoint(checkpoint, tmp_path):
    model = classifier(checkpoint)
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
