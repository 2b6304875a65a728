"""Embeddings centred and whitened: by hand, and by library and control cells alone."""

import numpy as np
import pytest

from reverse_perturbation.errors import InputError
from reverse_perturbation.retrieval.evaluate import average
from reverse_perturbation.retrieval.transform import Transform

CELLS = np.array([[1.0, 5.0], [3.0, 5.0], [1.0, 9.0], [3.0, 9.0]])


def test_plain_changes_nothing():
    found = Transform.fit("plain", CELLS, None)(CELLS)
    assert (found == CELLS).all()
    assert found.dtype == np.float32


def test_centred_by_hand():
    """The origin is the control cells' mean, not the library's."""
    found = Transform.fit("centred", CELLS, np.array([1.0, 1.0]))
    assert found(np.array([[4.0, 1.0], [1.0, 1.0]])).tolist() == [[3, 0], [0, 0]]


def test_centred_needs_control_cells():
    with pytest.raises(InputError, match=r"library\.embedding is centred, but there are no control cells"):
        Transform.fit("centred", CELLS, None)


def test_whitened_by_hand():
    """Mean (2, 7), standard deviations 1 and 2 along the axes; the direction of an axis is free."""
    found = Transform.fit("whitened", CELLS, np.array([100.0, 100.0]))
    assert np.abs(found(np.array([[3.0, 7.0]]))) == pytest.approx(np.array([[1.0, 0.0]]))
    assert np.abs(found(np.array([[2.0, 13.0]]))) == pytest.approx(np.array([[0.0, 3.0]]))


def test_whitened_cells_have_mean_0_and_covariance_1():
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6)) + 5
    found = Transform.fit("whitened", cells, None)(cells)
    assert found.mean(axis=0) == pytest.approx(np.zeros(6), abs=1e-5)
    assert found.T @ found / 500 == pytest.approx(np.eye(6), abs=1e-4)


def test_directions_without_variance_are_left_out():
    """Two columns that say the same and one that says nothing, in float32: noise is not blown up to variance 1."""
    rng = np.random.default_rng(0)
    one = rng.normal(size=(300, 1))
    cells = np.hstack([one, 3 * one, np.full((300, 1), 0.1), rng.normal(size=(300, 1))]).astype(np.float32)
    assert Transform.fit("whitened", cells, None)(cells).shape == (300, 2)
    alike = np.full((5, 3), 0.5, dtype=np.float32)
    assert Transform.fit("whitened", alike, None)(alike).shape == (5, 0)


def test_an_average_is_carried_where_the_average_of_the_carried_lies():
    rng = np.random.default_rng(0)
    cells, groups = rng.normal(size=(40, 3)), rng.integers(40, size=(7, 5))
    for kind in ("plain", "centred", "whitened"):
        found = Transform.fit(kind, cells, np.ones(3))
        assert found(average(cells, groups)) == pytest.approx(average(found(cells), groups), abs=1e-6)
