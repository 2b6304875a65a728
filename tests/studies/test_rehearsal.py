"""The checkpoint of a rehearsal."""

import json

import pytest
import torch

from reverse_perturbation.models.scgpt.encoder.checkpoint import load_checkpoint
from reverse_perturbation.studies import rehearsal


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """One of little width: as many tokens, layers and files."""
    monkeypatch.setitem(rehearsal.WHOLE_HUMAN, "embsize", 8)
    monkeypatch.setitem(rehearsal.WHOLE_HUMAN, "d_hid", 8)
    rehearsal.provide_checkpoint(tmp_path / "scgpt")
    return tmp_path / "scgpt"


def test_it_has_the_layout_of_the_official_one(folder):
    """Files, tokens and the 163 tensors of shared/reference/scgpt_checkpoints.md."""
    assert sorted(file.name for file in folder.iterdir()) == ["args.json", "best_model.pt", "vocab.json"]
    assert len(json.loads((folder / "vocab.json").read_text())) == 60_697
    state = torch.load(folder / "best_model.pt", weights_only=True)
    used = sum(not name.startswith("cls_decoder.") for name in state)
    assert used == 163 - 1, "the official one has flag_encoder.weight too, and no classifier"
    assert "transformer_encoder.layers.11.self_attn.Wqkv.weight" in state
    loaded = load_checkpoint(folder)
    assert loaded.architecture.input_style == "binned"
    assert "not the published weights" in str(loaded.report)


def test_it_is_written_once(folder, capsys):
    (folder / "best_model.pt").write_bytes(b"mine")
    capsys.readouterr()
    rehearsal.provide_checkpoint(folder)
    assert (folder / "best_model.pt").read_bytes() == b"mine"
    assert capsys.readouterr().out == ""
