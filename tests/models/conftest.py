"""A small checkpoint, small training data that can be learned, and a small screen."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from accelerate import Accelerator

from reverse_perturbation.config import load_params
from reverse_perturbation.data.screen.masked_screen import MaskedScreen
from reverse_perturbation.models.encoder.tokens import Tokens
from reverse_perturbation.models.finetune.network.classifier import EncoderClassifier
from reverse_perturbation.models.finetune.training.train import TrainingData
from reverse_perturbation.models.scgpt.encoder.backbone import ScgptBackbone
from reverse_perturbation.models.scgpt.encoder.checkpoint import load_checkpoint, save_checkpoint
from reverse_perturbation.models.scgpt.encoder.tokenize import tokenize
from reverse_perturbation.models.scgpt.pretrain import small_architecture, small_vocabulary
from reverse_perturbation.sections import Finetune, Loss

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
ONE = Accelerator()  # one process, no autocast
CPU = torch.device("cpu")
GENES = 12
CONDITIONS = ["A+ctrl", "B+ctrl", "C+ctrl"]
CELL_IDS = np.array([f"c{i}" for i in range(240)], dtype=object)
QUICK = {
    "schedule__epochs": 4,
    "schedule__patience": 4,
    "sampler__batch_size": 32,
    "adaptation__dropout": 0.0,
    "adaptation__last_layers": 1,
    "optimizer__backbone_learning_rate": 1e-3,
    "optimizer__head_learning_rate": 1e-2,
    "head__dropout": 0.0,
    "head__readout": ["cls", "mean", "genes"],
    "head__gene_rank": 2,
    "head__dim": 8,
}


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A folder in the official layout: 3 layers, width 16, random weights."""
    folder = tmp_path_factory.mktemp("scgpt") / "base"
    config = PARAMS.pretrain.model_copy(update={"layers": 3, "heads": 2, "width": 16})
    architecture = small_architecture(config, "log1p")
    vocabulary = small_vocabulary(np.array([f"G{i}" for i in range(GENES)], dtype=object))
    torch.manual_seed(0)
    save_checkpoint(folder, ScgptBackbone(architecture, vocabulary), vocabulary, architecture)
    return folder


@pytest.fixture(scope="session")
def tokens() -> Tokens:
    """240 cells of three conditions, each of which raises two genes."""
    rng = np.random.default_rng(0)
    mean = np.full((240, GENES), 0.5)
    for i in range(240):
        mean[i, 2 * (i % 3) : 2 * (i % 3) + 2] = 12.0
    counts = sp.csr_matrix(rng.poisson(mean).astype(np.float32))
    tokens = tokenize(
        counts,
        np.asarray(counts.sum(axis=1)).ravel(),
        token_ids=np.arange(GENES),
        cell_ids=CELL_IDS,
        config=PARAMS.scgpt,
        n_bins=51,
        vocabulary={"<pad>": GENES, "<cls>": GENES + 1},
        pad_value=-2,
    )
    # As far apart as bins: values encoded by random weights tell the conditions apart only then.
    return replace(tokens, values=1 + (tokens.values - 6) * (49 / 3))


@pytest.fixture(scope="session")
def data(tokens) -> TrainingData:
    """The first 60 cells to learn from, the next 30 to choose by."""
    return TrainingData(CELL_IDS, tokens, np.arange(240) % 3, CONDITIONS, np.arange(60), np.arange(60, 90))


@pytest.fixture(scope="session")
def screen() -> MaskedScreen:
    """120 cells of three conditions, each of which raises two genes; 72 reference, 24 validation, 24 query cells."""
    rng = np.random.default_rng(1)
    condition = np.arange(120) % 3
    mean = np.full((120, GENES), 1.0)
    for raised in (2 * condition, 2 * condition + 1):
        mean[np.arange(120), raised] = 4.0
    counts = sp.csr_matrix(rng.poisson(mean).astype(np.float32))
    genes = np.array([f"G{i}" for i in range(GENES)], dtype=object)
    return MaskedScreen(
        cell_ids=CELL_IDS[:120],
        conditions=np.array(CONDITIONS, dtype=object)[condition],
        parts=np.repeat(np.array(["reference", "validation", "query"], dtype=object), [72, 24, 24]),
        counts=counts,
        totals=np.asarray(counts.sum(axis=1)).ravel() + rng.integers(500, 2000, 120).astype(np.float32),
        genes=genes,
        tokens=genes,
    )


def build(checkpoint: Path, config: Finetune, seed: int = 1) -> EncoderClassifier:
    """An untrained classifier of the three conditions."""
    torch.manual_seed(seed)
    return EncoderClassifier(load_checkpoint(checkpoint).backbone, torch.arange(GENES), len(CONDITIONS), config)


def finetune_config(**changes: Any) -> Finetune:
    """Quick settings without dropout; ``finetune_config(head__dropout=0.5)`` changes ``head.dropout``."""
    content = PARAMS.finetune.model_dump()
    for path, value in (QUICK | changes).items():
        *sections, key = path.split("__")
        section = content
        for name in sections:
            section = section[name]
        section[key] = value
    return Finetune.model_validate(content)


def loss_config(**changes: Any) -> Loss:
    """The default loss with some keys changed."""
    return Loss.model_validate(PARAMS.finetune.loss.model_dump() | changes)
