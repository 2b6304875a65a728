"""The GPU is found where the driver shows one, and PyTorch is imported nowhere else."""

import subprocess
import sys

import pytest
import torch

from reverse_perturbation import gpu as module
from reverse_perturbation.gpu import gpu


@pytest.mark.parametrize("shown", ["dev/nvidia0", "dev/nvidia3", "proc/driver/nvidia/gpus"])
def test_the_gpu_is_used_where_driver_and_pytorch_see_it(tmp_path, monkeypatch, shown):
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert gpu() is None
    (tmp_path / shown).mkdir(parents=True)
    assert gpu() == torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu() is None


def test_without_a_gpu_a_fit_and_a_search_do_not_import_pytorch():
    code = """
import sys
from pathlib import Path
import numpy as np, scipy.sparse as sp
from reverse_perturbation import gpu
gpu.ROOT = Path("/nowhere")
from reverse_perturbation.models.linear.logreg import LogisticRegression
from reverse_perturbation.retrieval.library import LibraryRanker
from reverse_perturbation.sections import Library
cells, labels = np.eye(4, dtype=np.float32), np.array(["A", "B", "A", "B"])
LogisticRegression("none", 1.0, 5).fit(sp.csr_matrix(cells), labels)
config = Library(kind="mean", similarity="cosine", embedding="plain", neighbours=1, prototypes=1,
                 cells_per_prototype=1, seed=0)
LibraryRanker(config).fit(cells, labels).scores(cells)
sys.exit("torch" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
