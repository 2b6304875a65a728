"""The GPU benchmark runs to its end on a CPU, and its stand-in for upstream's class is the same network."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest
import torch
from scgpt.model import TransformerModel

from reverse_perturbation.models.scgpt.encoder import backbone
from reverse_perturbation.models.scgpt.encoder.backbone import Architecture, ScgptBackbone
from tests.end_to_end.pipeline import ROOT

VOCABULARY = {f"G{i}": i for i in range(20)} | {"<pad>": 20, "<cls>": 21}
ARGS = {"nlayers": 2, "nheads": 4, "embsize": 32, "d_hid": 48, "dropout": 0.0, "MVC": True}


@pytest.fixture
def standin(monkeypatch):
    """The project's backbone on the stand-in instead of upstream's class."""
    spec = importlib.util.spec_from_file_location("scgpt_standin", ROOT / "benchmarks" / "scgpt_standin.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.TransformerModel


def test_the_stand_in_computes_what_upstreams_class_does(standin):
    assert issubclass(ScgptBackbone, TransformerModel)
    torch.manual_seed(0)
    ours = ScgptBackbone(Architecture.from_args(ARGS, "test"), VOCABULARY).eval()
    arguments = {"ntoken": 22, "d_model": 32, "dropout": 0.0, "vocab": VOCABULARY, "pad_token": "<pad>", "nhead": 4}
    other = standin(**arguments).eval()
    other.transformer_encoder = ours.transformer_encoder
    state = {name: tensor for name, tensor in ours.state_dict().items() if name in other.state_dict()}
    assert other.load_state_dict(state).missing_keys == []
    assert all(backbone.DECODERS.match(name) for name in ours.state_dict().keys() - state.keys())
    ids = torch.randint(0, 20, (3, 6), generator=torch.Generator().manual_seed(0))
    values = torch.rand(3, 6, generator=torch.Generator().manual_seed(1)) * 600  # above 512, where values are cut
    padding = torch.tensor([[False] * 6, [False] * 4 + [True] * 2, [False] * 2 + [True] * 4])
    with torch.no_grad():
        found, wanted = (model(ids, values, src_key_padding_mask=padding, MVC=True) for model in (other, ours))
    for name in ("mlm_output", "mvc_output"):
        assert torch.allclose(found[name][~padding], wanted[name][~padding], atol=1e-5), name


@pytest.mark.slow
def test_every_section_runs_without_a_gpu(tmp_path):
    environment = os.environ | {
        "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        ["benchmarks/gpu.sh", "--tiny", "--output", str(tmp_path)], cwd=ROOT, env=environment, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert list(found["sections"]) == ["card", "embed", "finetune", "largest batch", "logreg", "search", "protocol"]
    assert all(section["rows"] for section in found["sections"].values())
    ways = {row["way"]: row["smallest cosine to float32"] for row in found["sections"]["embed"]["rows"]}
    assert all(value > 0.999 for value in ways.values()), "each way embeds the same cells"
    text = (tmp_path / "gpu.md").read_text()
    assert "sizes too small to say anything about speed" in text
    models = {row["model"]: row.get("mrr") for row in found["sections"]["protocol"]["rows"]}
    assert models["scgpt, seed 0"] > 0.2, "chance is 0.18 with 20 conditions"
