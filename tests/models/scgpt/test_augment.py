"""Made-up training cells: pooled within a condition, thinned to one cell's depth."""

import numpy as np
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from reverse_perturbation.data.screen import Screen
from reverse_perturbation.models.scgpt.augment import mix

CONDITIONS = np.array(["A", "A", "A", "B", "B", "C"], dtype=object)
# Each cell has counts in a gene of its own, so that one sees whose molecules a made-up cell has.
COUNTS = np.diag([100, 200, 300, 400, 500, 600]).astype(np.float32)
GENES = np.array([f"G{i}" for i in range(6)], dtype=object)
SCREEN = Screen(
    cells=np.array([f"c{i}" for i in range(6)], dtype=object),
    conditions=CONDITIONS,
    parts=np.array(["reference"] * 6, dtype=object),
    counts=sp.csr_matrix(COUNTS),
    totals=np.array([1000, 2000, 3000, 4000, 5000, 6000], dtype=np.float32),
    genes=GENES,
    tokens=GENES,
)


@given(cells=st.integers(1, 4), seed=st.integers(0, 999), rows=st.permutations([0, 1, 3, 4, 5]))
def test_molecules_come_from_training_cells_of_the_same_condition_alone(cells, seed, rows):
    rows = np.array(rows)
    found = mix(SCREEN, rows, cells, np.random.default_rng(seed))
    assert list(found.conditions) == list(CONDITIONS[rows])
    counts = found.counts.toarray()
    assert (counts == np.rint(counts)).all()
    assert (found.counts.data > 0).all()
    for counted, condition in zip(counts, found.conditions, strict=True):
        sources = np.flatnonzero(counted)
        assert set(CONDITIONS[sources]) <= {condition}
        assert 2 not in sources  # a cell of condition A that is not among the rows
    assert (counts <= COUNTS.max(axis=0) * cells).all()


def test_one_cell_is_itself():
    found = mix(SCREEN, np.array([4, 0]), 1, np.random.default_rng(0))
    assert (found.counts.toarray() == COUNTS[[4, 0]]).all()
    assert found.totals.tolist() == [5000, 1000]
    assert list(found.cells) == ["c4", "c0"]


def test_depth_is_the_mean_of_the_cells_pooled():
    """A condition with one training cell is pooled with itself: half of 1,200 molecules, standard deviation 17."""
    found = mix(SCREEN, np.array([5]), 2, np.random.default_rng(0))
    assert found.totals.tolist() == [6000]
    assert abs(found.counts.toarray()[0, 5] - 600) < 5 * 17.4
    assert found.counts.toarray()[0, 5] != 600  # sampled anew, not copied
    many = [mix(SCREEN, np.array([3, 4]), 2, np.random.default_rng(seed)) for seed in range(400)]
    # Cell 3 keeps half of its own 400, and meets itself or cell 4 (500) with equal chance: 200 + 200 / 2, 500 / 4.
    mean = np.mean([m.counts.toarray()[0] for m in many], axis=0)
    assert np.allclose(mean[[3, 4]], [300, 125], atol=5 * 125 / np.sqrt(400))
    assert np.isclose(np.mean([m.totals[0] for m in many]), 4250, atol=5 * 250 / np.sqrt(400))


def test_draws_differ_by_generator_and_repeat_by_seed():
    a, b, c = (mix(SCREEN, np.arange(6), 2, np.random.default_rng(seed)).counts.toarray() for seed in (1, 1, 2))
    assert (a == b).all()
    assert (a != c).any()
