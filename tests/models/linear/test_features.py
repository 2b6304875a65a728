"""Depth beside expression."""

from dataclasses import replace

import numpy as np
import pytest

from reverse_perturbation.models.linear.features import depth_features, feature_names, features


def test_depth_by_hand():
    found = depth_features(np.array([1e4, 2e4, 0.0], dtype=np.float32)).toarray()
    assert found == pytest.approx(np.array([[0, 0], [np.log(2), np.log(2) ** 2], [0, 0]]), rel=1e-6)


def test_the_two_columns_stand_behind_the_genes(screen):
    totals = screen.totals.copy()
    totals[:3] = [1e4, 2e4, 5e3]
    deeper = replace(screen, totals=totals)
    found = features(deeper, "log1p_depth")
    assert found.shape == (120, 14)
    assert found.dtype == np.float32
    assert (found[:, :12] != features(deeper, "log1p")).nnz == 0
    log = np.log([1, 2, 0.5])
    assert found[:3, 12:].toarray() == pytest.approx(np.stack([log, log**2], axis=1), rel=1e-6)
    assert feature_names(screen.genes, "log1p_depth") == [*screen.genes, "log depth", "log depth squared"]
    assert feature_names(screen.genes, "log1p") == [*screen.genes]
