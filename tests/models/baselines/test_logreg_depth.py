"""Library size beside expression."""

import numpy as np
import pytest
from reverse_perturbation.stages.logreg import library_size


def test_library_size_by_hand():
    found = library_size(np.array([1e4, 2e4, 0.0], dtype=np.float32)).toarray()
    assert found == pytest.approx(np.array([[0, 0], [np.log(2), np.log(2) ** 2], [0, 0]]), rel=1e-6)
