"""What no sequencer counts is told from what one does."""

import numpy as np
import pytest
import scipy.sparse as sp

from reverse_perturbation.prepare.source.depths import depth_warnings

N, GENES = 300, 2000


@pytest.fixture(scope="module")
def umis() -> np.ndarray:
    """Cells of 1,000 to 6,000 UMIs."""
    rng = np.random.default_rng(0)
    depths, means = rng.uniform(1000, 6000, (N, 1)), rng.lognormal(0, 1.5, (1, GENES))
    return rng.poisson(depths * means / means.sum()).astype(np.float32)


def warned(values: np.ndarray, totals: np.ndarray | None = None) -> str:
    counts = sp.csr_matrix(values)
    return "; ".join(depth_warnings(counts, values.sum(axis=1) if totals is None else totals, totals is not None))


def test_counts_of_molecules_are_not_warned_of(umis):
    assert warned(umis) == ""
    assert warned(umis[:, :30]) == "", "nor a small panel of them"
    assert warned(umis[:, :30], umis.sum(axis=1)) == ""
    most = np.argsort(-umis.sum(axis=0))[:12]
    assert (umis[:, most].min(axis=1) > 1).mean() > 0.9
    assert warned(umis[:, most]) == "", "nor genes that are highly expressed"
    assert warned(umis[:5]) == "", "nor a few cells"
    assert warned(np.zeros((30, 4))) == ""


def test_scaled_and_rounded_values_are(umis):
    scaled = np.round(umis / umis.sum(axis=1, keepdims=True) * 1e4)
    assert "the sum of a cell's counts varies by 1.2% only (median 10,0" in warned(scaled)
    assert "in 100% of the cells the smallest count, of many genes, is above 1" in warned(scaled[:, ::5]), (
        "a part of the genes"
    )


def test_rounded_logarithms_are(umis):
    logs = np.round(np.log1p(umis / umis.sum(axis=1, keepdims=True) * 1e4))
    assert "no count is above 5, although a cell has 2,0" in warned(logs)


def test_depths_that_are_scaled_or_logarithms_are(umis):
    assert 'obs["total_counts"] varies by 0.3% only' in warned(umis[:, :9], 10_000 + np.arange(N) / 3)
    assert 'obs["total_counts"] is 9 at most, as logarithms' in warned(umis[:, :9], np.round(np.log(umis.sum(axis=1))))
