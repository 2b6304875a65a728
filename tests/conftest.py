"""Fixtures used in several test folders."""

from pathlib import Path

import pytest

NORMAN_SUBSET = Path(__file__).parents[2] / "shared" / "data" / "norman_subset.h5ad"
ROW_LABELS = Path(__file__).parents[2] / "shared" / "reference" / "norman_row_labels.csv.gz"


@pytest.fixture(scope="session")
def norman_subset() -> Path:
    """Real cells; they are not part of the repository."""
    if not NORMAN_SUBSET.exists():
        pytest.skip("norman_subset.h5ad is not beside the checkout (see data/raw/README.md)")
    return NORMAN_SUBSET


@pytest.fixture(scope="session")
def row_labels() -> Path:
    """The label of each row of the full Norman file."""
    if not ROW_LABELS.exists():
        pytest.skip("norman_row_labels.csv.gz is not beside the checkout")
    return ROW_LABELS
