"""Depth beside expression."""

import numpy as np
import pytest

from reverse_perturbation.models.baselines.logreg_depth import depth_features


def test_depth_by_hand():
    found = depth_features(np.array([1e4, 2e4, 0.0], dtype=np.float32)).toarray()
    assert found == pytest.approx(np.array([[0, 0], [np.log(2), np.log(2) ** 2], [0, 0]]), rel=1e-6)
