"""What is said of conditions and ceilings rests on the library's cells."""

import numpy as np
import pytest
import scipy.sparse as sp

from reverse_perturbation.data.screen.masked_screen import MaskedScreen
from reverse_perturbation.sections import Analysis
from reverse_perturbation.stages.analysis import describe, reachable

PARTS = ("reference", "validation", "query", "control")


@pytest.fixture
def screen() -> MaskedScreen:
    """Of each condition and part ten cells; control cells are of a condition of their own."""
    parts = np.repeat(PARTS, 20).astype(object)
    conditions = np.tile(np.repeat(["A+ctrl", "B+ctrl"], 10), 4).astype(object)
    conditions[parts == "control"] = "ctrl"
    n, names = len(parts), np.array(["A", "B"], dtype=object)
    cell_ids = np.array([f"c{i}" for i in range(n)], dtype=object)
    return MaskedScreen(cell_ids, conditions, parts, sp.csr_matrix((n, 2), dtype=np.float32), np.zeros(n), names, names)


def test_query_cells_change_nothing(screen):
    config = Analysis(bins=15, similar=0.5, cells_per_query=[1, 5], draws=3, seed=0)
    embedding = np.random.default_rng(0).normal(size=(80, 4))
    other = embedding.copy()
    other[screen.rows("query")] = 100 * np.random.default_rng(1).normal(size=(20, 4))
    (facts, similarity), (facts_too, similarity_too) = (describe(screen, each) for each in (embedding, other))
    assert facts["reference_cells"].tolist() == [20, 20], "validation's included, queries' not"
    assert facts.equals(facts_too)
    assert (similarity == similarity_too).all()
    assert reachable(screen, embedding, config).equals(reachable(screen, other, config))
