"""A small checkpoint and a small task that can be learned."""

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from accelerate import Accelerator

from reverse_perturbation.config import Finetune, Loss, load_params
from reverse_perturbation.models.finetune.training.train import TrainingData
from reverse_perturbation.models.scgpt.encoder.backbone import build_backbone
from reverse_perturbation.models.scgpt.encoder.checkpoint import save_checkpoint
from reverse_perturbation.models.scgpt.encoder.tokenize import Scale, Tokens, tokenize
from reverse_perturbation.models.scgpt.pretrain import small_architecture, small_vocabulary

PARAMS = load_params(Path(__file__).parents[3] / "params.yaml")
ONE = Accelerator()  # one process, no autocast
GENES = 12
CONDITIONS = ["A+ctrl", "B+ctrl", "C+ctrl"]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A folder in the official layout: 3 layers, width 16, random weights."""
    folder = tmp_path_factory.mktemp("scgpt") / "base"
    config = PARAMS.pretrain.model_copy(update={"layers": 3, "heads": 2, "width": 16})
    architecture = small_architecture(config, "log1p")
    vocabulary = small_vocabulary(np.array([f"G{i}" for i in range(GENES)], dtype=object))
    torch.manual_seed(0)
    save_checkpoint(folder, build_backbone(architecture, vocabulary), vocabulary, architecture)
    return folder


@pytest.fixture(scope="session")
def tokens() -> Tokens:
    """240 cells of three conditions, each of which raises two genes."""
    rng = np.random.default_rng(0)
    mean = np.full((240, GENES), 0.5)
    for i in range(240):
        mean[i, 2 * (i % 3) : 2 * (i % 3) + 2] = 12.0
    counts = sp.csr_matrix(rng.poisson(mean).astype(np.float32))
    return tokenize(
        counts,
        np.asarray(counts.sum(axis=1)).ravel(),
        token_ids=np.arange(GENES),
        cells=np.array([f"c{i}" for i in range(240)], dtype=object),
        config=PARAMS.scgpt,
        n_bins=51,
        vocabulary={"<pad>": GENES, "<cls>": GENES + 1},
        pad_value=-2,
        scale=Scale(6.0, 9.0),
    )


@pytest.fixture(scope="session")
def task(tokens) -> TrainingData:
    """The first 180 cells to learn from, the others to choose by."""
    cells = np.array([f"c{i}" for i in range(240)], dtype=object)
    return TrainingData(cells, tokens, np.arange(240) % 3, CONDITIONS, np.arange(60), np.arange(60, 90))


def finetune_config(**changes) -> Finetune:
    """Quick settings, without dropout unless asked for."""
    quick = {
        "epochs": 4,
        "patience": 4,
        "batch_size": 32,
        "dropout": 0.0,
        "head_dropout": 0.0,
        "backbone_learning_rate": 1e-3,
        "head_learning_rate": 1e-2,
        "readout": ["cls", "mean", "genes"],
        "gene_rank": 2,
        "head_dim": 8,
        "last_layers": 1,
    }
    return PARAMS.finetune.model_copy(update=quick | changes)


def loss_config(**changes) -> Loss:
    """The default loss with some keys changed."""
    return Loss.model_validate(PARAMS.finetune.loss.model_dump() | changes)
