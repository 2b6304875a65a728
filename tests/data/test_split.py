"""The split is the earlier project's, to the cell."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reverse_perturbation.conditions import canonical
from reverse_perturbation.data.split import split_cells
from reverse_perturbation.errors import InputError


def frame(labels: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"condition": labels}, index=[f"cell{i}" for i in range(len(labels))])


@pytest.fixture(scope="module")
def norman_obs(row_labels) -> pd.DataFrame:
    rows = pd.read_csv(row_labels)
    labels = np.full(91_205, "ctrl", dtype=object)
    labels[rows["row"].to_numpy()] = rows["condition"].to_numpy()
    return frame(list(labels))


def test_full_norman_has_the_known_sizes(norman_obs):
    split = split_cells(norman_obs, seed=42, label_space="legacy")
    assert split["condition"].nunique() == 282
    sizes = split["part"].value_counts()
    assert sizes["reference"] + sizes["validation"] == 67_152
    assert sizes["query"] == 16_651


def test_queries_are_those_of_the_earlier_algorithm(norman_obs):
    """The algorithm of lessons.md, written out as a loop over labels."""
    labels = norman_obs["condition"].to_numpy()
    rng = np.random.default_rng(42)
    expected: set[str] = set()
    for label in dict.fromkeys(labels):
        rows = np.flatnonzero(labels == label)
        if label == "ctrl" or len(rows) < 50:
            continue
        rows = rng.permutation(rows)
        expected |= set(norman_obs.index[rows[len(rows) - max(10, int(0.2 * len(rows))) :]])
    split = split_cells(norman_obs, seed=42, label_space="legacy")
    assert set(split.loc[split["part"] == "query", "cell"]) == expected


def test_both_label_spaces_share_the_assignment(norman_obs):
    legacy = split_cells(norman_obs, seed=7, label_space="legacy")
    shared = split_cells(norman_obs, seed=7, label_space="canonical")
    assert (legacy["cell"] == shared["cell"]).all()
    assert (legacy["part"] == shared["part"]).all()
    assert list(shared["condition"]) == [canonical(label) for label in legacy["condition"]]
    assert shared["condition"].nunique() == 235


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(12, 90), min_size=1, max_size=5),
    seed=st.integers(0, 2**32 - 1),
    validation=st.floats(0.02, 0.5),
)
def test_parts_are_disjoint_and_complete(sizes, seed, validation):
    labels = [f"G{i}+ctrl" for i, n in enumerate(sizes) for _ in range(n)] + ["ctrl"] * 5
    obs = frame(list(np.random.default_rng(seed).permutation(labels)))
    split = split_cells(obs, seed=seed, label_space="legacy", min_cells=12, validation_fraction=validation)
    assert split["cell"].is_unique
    assert len(split) == sum(sizes)
    for condition, part in split.groupby("condition")["part"]:
        counts = part.value_counts()
        n = sizes[int(condition[1:].split("+")[0])]
        assert counts["query"] == max(10, int(0.2 * n))
        assert counts["validation"] >= 1
        assert counts["reference"] >= 1


def test_small_conditions_and_controls_are_left_out():
    obs = frame(["A+ctrl"] * 60 + ["B+ctrl"] * 49 + ["ctrl"] * 80)
    assert set(split_cells(obs, seed=0, label_space="legacy")["condition"]) == {"A+ctrl"}


def test_nothing_left_is_an_error():
    with pytest.raises(InputError, match="min_cells=50"):
        split_cells(frame(["A+ctrl"] * 10), seed=0, label_space="legacy")
    with pytest.raises(InputError, match="'A\\+ctrl' has 11 cells"):
        split_cells(frame(["A+ctrl"] * 11), seed=0, label_space="legacy", min_cells=5)
