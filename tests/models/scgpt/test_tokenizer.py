"""From the screen to tokens: which values a value encoder is given."""

import numpy as np
import pytest
import scipy.sparse as sp
from reverse_perturbation.models.scgpt.encoder.tokenizer import tokens_of

from reverse_perturbation.config import ValueInput
from reverse_perturbation.data.screen.masked_screen import MaskedScreen
from reverse_perturbation.errors import InputError
from reverse_perturbation.models.scgpt.encoder.backbone import build_backbone
from reverse_perturbation.models.scgpt.encoder.checkpoint import Checkpoint
from reverse_perturbation.models.scgpt.pretrain import small_architecture, small_vocabulary
from tests.models.scgpt.conftest import PARAMS

GENES = np.array(["G0", "G1", "G2"], dtype=object)
SCREEN = MaskedScreen(
    cells=np.array(["a", "b"], dtype=object),
    conditions=np.array(["G0", "G1"], dtype=object),
    parts=np.array(["reference", "query"], dtype=object),
    counts=sp.csr_matrix(np.array([[1, 3, 0], [0, 63, 1]], dtype=np.float32)),
    totals=np.array([1e4, 1e4], dtype=np.float32),
    genes=GENES,
    tokens=GENES,
)


def values(trained_on: ValueInput, fed: ValueInput) -> list[float]:
    architecture = small_architecture(PARAMS.pretrain, trained_on)
    vocabulary = small_vocabulary(GENES)
    checkpoint = Checkpoint(build_backbone(architecture, vocabulary), vocabulary, architecture, None)
    tokens = tokens_of(SCREEN, checkpoint, PARAMS.scgpt.model_copy(update={"value_input": fed}))
    return list(tokens.values)


def test_an_encoder_trained_on_log1p_gets_log1p():
    assert values("log1p", "log1p") == pytest.approx(np.log([2, 4, 64, 2]), rel=1e-6)


def test_an_encoder_trained_on_bins_gets_log1p_over_the_bins_as_fitted_on_reference_cells():
    low, high = np.quantile(np.log([2, 4]), [0.001, 0.999])  # of cell a alone: cell b is a query
    expected = 1 + (np.log([2, 4, 64, 2]) - low) * 49 / (high - low)
    assert values("binned", "log1p") == pytest.approx(expected, rel=1e-5)


def test_bins_mean_nothing_to_an_encoder_trained_on_log1p():
    with pytest.raises(InputError, match=r"scgpt.value_input is 'binned'.*set scgpt.value_input=log1p"):
        values("log1p", "binned")
