"""Synthetic training cells: pooled within a condition, thinned to one cell's depth."""

from dataclasses import replace

import numpy as np
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from reverse_perturbation.data.screen.masked_screen import MaskedScreen
from reverse_perturbation.models.recipe.resample import mix, thin

CONDITIONS = np.array(["A", "A", "A", "B", "B", "C"], dtype=object)
# Each cell has counts in a gene of its own, so that one sees whose molecules a synthetic cell has.
COUNTS = np.diag([100, 200, 300, 400, 500, 600]).astype(np.float32)
GENES = np.array([f"G{i}" for i in range(6)], dtype=object)
SCREEN = MaskedScreen(
    cell_ids=np.array([f"c{i}" for i in range(6)], dtype=object),
    conditions=CONDITIONS,
    parts=np.array(["reference"] * 6, dtype=object),
    counts=sp.csr_matrix(COUNTS),
    totals=np.array([1000, 2000, 3000, 4000, 5000, 6000], dtype=np.float32),
    genes=GENES,
    tokens=GENES,
)


@given(n_cells=st.integers(1, 4), seed=st.integers(0, 999), rows=st.permutations([0, 1, 3, 4, 5]))
def test_molecules_come_from_training_cells_of_the_same_condition_alone(n_cells, seed, rows):
    rows = np.array(rows)
    found = mix(SCREEN, rows, n_cells, np.random.default_rng(seed))
    assert list(found.conditions) == list(CONDITIONS[rows])
    counts = found.counts.toarray()
    assert (counts == np.rint(counts)).all()
    assert (found.counts.data > 0).all()
    for counted, condition in zip(counts, found.conditions, strict=True):
        sources = np.flatnonzero(counted)
        assert set(CONDITIONS[sources]) <= {condition}
        assert 2 not in sources  # a cell of condition A that is not among the rows
    assert (counts <= COUNTS.max(axis=0) * n_cells).all()


def test_one_cell_is_itself():
    found = mix(SCREEN, np.array([4, 0]), 1, np.random.default_rng(0))
    assert (found.counts.toarray() == COUNTS[[4, 0]]).all()
    assert found.totals.tolist() == [5000, 1000]
    assert list(found.cell_ids) == ["c4", "c0"]


def test_depth_is_the_mean_of_the_cells_pooled():
    """A condition with one training cell is pooled with itself: half of 1,200 molecules, standard deviation 17."""
    found = mix(SCREEN, np.array([5]), 2, np.random.default_rng(0))
    assert found.totals.tolist() == [6000]
    assert abs(found.counts.toarray()[0, 5] - 600) < 5 * 17.4
    assert found.counts.toarray()[0, 5] != 600  # resampled, not copied
    many = [mix(SCREEN, np.array([3, 4]), 2, np.random.default_rng(seed)) for seed in range(400)]
    # Cell 3 keeps half of its own 400, and meets itself or cell 4 (500) with equal chance: 200 + 200 / 2, 500 / 4.
    mean = np.mean([m.counts.toarray()[0] for m in many], axis=0)
    assert np.allclose(mean[[3, 4]], [300, 125], atol=5 * 125 / np.sqrt(400))
    assert np.isclose(np.mean([m.totals[0] for m in many]), 4250, atol=5 * 250 / np.sqrt(400))


def test_draws_differ_by_generator_and_repeat_by_seed():
    a, b, c = (mix(SCREEN, np.arange(6), 2, np.random.default_rng(seed)).counts.toarray() for seed in (1, 1, 2))
    assert (a == b).all()
    assert (a != c).any()


def deep(n):
    """Like the first screen's cells, n of them, deep enough for a share to be read off; 3,000 molecules unseen."""
    counts = sp.csr_matrix(np.tile([1000.0, 0.0, 4000.0, 0.0, 0.0, 1.0], (n, 1)).astype(np.float32))
    same = np.full(n, "A", dtype=object)
    names = np.array([f"c{i}" for i in range(n)], dtype=object)
    return replace(
        SCREEN, cell_ids=names, conditions=same, parts=same, counts=counts, totals=np.full(n, 8001.0, np.float32)
    )


def test_a_thinned_cell_keeps_one_share_of_all_its_molecules():
    """Seen and unseen: each share is that of the whole cell, within 5 standard deviations of the sampling."""
    screen = deep(500)
    found = thin(screen, 0.6, np.random.default_rng(0))
    counts = found.counts.toarray()
    assert (counts == np.rint(counts)).all()
    assert (found.counts.data > 0).all(), "no zeros are stored: they would become tokens"
    assert (counts <= screen.counts.toarray()).all()
    share = counts[:, 2] / 4000
    assert np.abs(counts[:, 0] / 1000 - share).max() < 5 * 0.5 * np.sqrt(1 / 1000 + 1 / 4000)
    unseen = found.totals - counts.sum(axis=1)
    assert np.abs(unseen / 3000 - share).max() < 5 * 0.5 * np.sqrt(1 / 3000 + 1 / 4000)
    assert share.min() < 0.43
    assert share.max() > 0.97
    assert abs(share.mean() - 0.7) < 5 * 0.6 / np.sqrt(12 * 500)
    assert (screen.counts.toarray()[:, 5] == 1).all(), "the screen given is as it was"


def test_nothing_thinned_is_the_screen_itself():
    assert thin(SCREEN, 0.0, np.random.default_rng(0)) is SCREEN
