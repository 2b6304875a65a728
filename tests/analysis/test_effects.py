"""The E-distance against its definition over pairs of cells, and similarity of profiles by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reverse_perturbation.analysis.effects import e_distance, mean_profiles, similarity


def by_pairs(a: np.ndarray, b: np.ndarray) -> float:
    """The definition, every pair of cells visited."""
    between = np.mean([np.sum((x - y) ** 2) for x in a for y in b])
    within = [
        np.mean([np.sum((x - y) ** 2) for i, x in enumerate(g) for j, y in enumerate(g) if i != j]) for g in (a, b)
    ]
    return 2 * between - sum(within)


def test_by_hand():
    """Cells at 0 and 2, and at 2 and 4: between them (4 + 16 + 0 + 4) / 4 = 6, within either group 4."""
    assert e_distance(np.array([[0.0], [2.0]]), np.array([[2.0], [4.0]])) == pytest.approx(2 * 6 - 4 - 4)


@given(st.integers(2, 6), st.integers(2, 6), st.integers(0, 1000))
def test_it_is_the_definition_and_symmetric(n, m, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(n, 3)), rng.normal(1, 2, size=(m, 3))
    assert e_distance(a, b) == pytest.approx(by_pairs(a, b))
    assert e_distance(b, a) == pytest.approx(e_distance(a, b))


def test_of_one_distribution_it_is_zero_on_average_however_few_the_cells():
    rng = np.random.default_rng(0)
    found = [e_distance(rng.normal(size=(4, 5)), rng.normal(size=(60, 5))) for _ in range(3000)]
    assert np.mean(found) == pytest.approx(0, abs=4 * np.std(found) / 3000**0.5)
    assert min(found) < 0 < max(found)


def test_one_cell_has_no_distance_within():
    with pytest.raises(ValueError, match="two cells in each group, found 1 and 2"):
        e_distance(np.ones((1, 2)), np.ones((2, 2)))


def test_profiles_by_hand():
    """Within conditions the first dimension has deviations of 2, 2, 0, 0 and the second of 1, 1, 1, 1."""
    cells = np.array([[8.0, 5.0, 1.0], [12.0, 7.0, 1.0], [11.0, 4.0, 2.0], [11.0, 6.0, 2.0]])
    labels = np.array(["A", "A", "B", "B"], dtype=object)
    found = mean_profiles(cells, labels, np.array(["A", "B"], dtype=object))
    assert found == pytest.approx(np.array([[10 / 2**0.5, 6, 0], [11 / 2**0.5, 5, 0]]))


def test_a_dimension_that_only_varies_more_does_not_decide():
    """Conditions differ in the second dimension; the first varies a thousand times more in all of them."""
    rng = np.random.default_rng(0)
    conditions = np.array(["A", "B", "C"], dtype=object)
    labels = np.repeat(conditions, 50)
    cells = rng.normal(size=(150, 2)) * [1000, 1] + np.repeat([[0, 9.0], [0, 9.0], [0, -9.0]], 50, axis=0)
    found = similarity(mean_profiles(cells, labels, conditions))
    assert found[0, 1] > 0.95
    assert found[0, 2] < -0.95


def test_similarity_by_hand():
    """What all conditions share is taken out: A and B point one way, C the other."""
    profiles = np.array([[10.0, 6.0], [11.0, 5.0], [7.0, 3.0]])
    x, y, _ = profiles - profiles.mean(axis=0)
    found = similarity(profiles)
    assert np.diag(found) == pytest.approx([1, 1, 1])
    assert found[0, 1] == pytest.approx(x @ y / np.sqrt((x @ x) * (y @ y)))
    assert found[0, 2] < 0 < found[0, 1]
    assert similarity(profiles + 100) == pytest.approx(found)
    assert similarity(np.ones((2, 3))).tolist() == [[0, 0], [0, 0]]
