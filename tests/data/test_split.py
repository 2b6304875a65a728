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
        assert counts["validation"] == max(1, round(validation * (n - counts["query"])))
        assert counts["reference"] >= 1


@pytest.mark.parametrize("kind", ["cell", "gem_group"])
def test_validation_cells_are_drawn_at_random_from_the_known_cells(kind):
    """Over 200 seeds each place of the file, counted among the known cells, is validation about 20 times."""
    obs = frame(["A+ctrl"] * 160).assign(gem_group=["1", "2"] * 80)
    chosen = []
    for seed in range(200):
        part = split_cells(obs, kind=kind, seed=seed, label_space="legacy", validation_fraction=0.1)["part"].to_numpy()
        chosen.append(part[part != "query"] == "validation")
    times = np.sum(chosen, axis=0)
    assert len(times) == {"cell": 128, "gem_group": 80}[kind]
    assert 5 <= times.min() <= times.max() <= 40, "a binomial of 200 and 0.1 has a standard deviation of 4.2"


def test_small_conditions_and_controls_are_left_out():
    obs = frame(["A+ctrl"] * 60 + ["B+ctrl"] * 49 + ["ctrl"] * 80)
    assert set(split_cells(obs, seed=0, label_space="legacy")["condition"]) == {"A+ctrl"}


def test_nothing_left_is_an_error():
    with pytest.raises(InputError, match=r"min_cells=50 cells \(the largest of 1 has 10\), lower it$"):
        split_cells(frame(["A+ctrl"] * 10), seed=0, label_space="legacy")
    with pytest.raises(InputError, match="'A\\+ctrl' has 11 cells"):
        split_cells(frame(["A+ctrl"] * 11), seed=0, label_space="legacy", min_cells=5)


def lanes(cells_of_lane: dict[str, dict[str, int]]) -> pd.DataFrame:
    rows = [(c, lane) for lane, found in cells_of_lane.items() for c, n in found.items() for _ in range(n)]
    obs = pd.DataFrame(rows, columns=["condition", "gem_group"], index=[f"cell{i}" for i in range(len(rows))])
    return obs.sample(frac=1, random_state=0)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), fraction=st.floats(0.05, 0.9), space=st.sampled_from(["legacy", "canonical"]))
def test_query_lanes_are_never_seen(seed, fraction, space):
    obs = lanes({f"lane{i}": {"A+ctrl": 20 + i, "ctrl+A": 15, "B+ctrl": 30, "ctrl": 9} for i in range(5)})
    split = split_cells(obs, kind="gem_group", seed=seed, label_space=space, query_fraction=fraction)
    lane = obs.loc[split["cell"], "gem_group"].to_numpy()
    query = split["part"].to_numpy() == "query"
    assert not set(lane[query]) & set(lane[~query])
    assert split["cell"].is_unique
    assert len(split) == (obs["condition"] != "ctrl").sum()
    # As many lanes as hold the fraction, and no more; but one is left to learn from.
    sizes = {name: int((lane == name).sum()) for name in set(lane[query])}
    assert query.mean() >= fraction or len(sizes) == 4
    assert len(sizes) == 1 or query.sum() - max(sizes.values()) < fraction * len(split)
    assert (split.groupby("condition")["part"].nunique() == 3).all()
    again = split_cells(obs, kind="gem_group", seed=seed, label_space=space, query_fraction=fraction)
    assert again.equals(split)


def test_a_condition_that_is_not_on_both_sides_is_left_out():
    both = {"A+ctrl": 40, "B+ctrl": 40}
    obs = lanes({"1": both | {"C+ctrl": 60}, "2": both, "3": both | {"D+ctrl": 1}, "4": both})
    for seed in range(8):
        split = split_cells(obs, kind="gem_group", seed=seed, label_space="legacy", min_cells=1, query_fraction=0.5)
        assert set(split["condition"]) == {"A+ctrl", "B+ctrl"}


def test_lanes_that_are_missing_or_too_few_are_an_error():
    with pytest.raises(InputError, match=r"split\.kind is gem_group, but the cells have no .*set split\.kind=cell"):
        split_cells(frame(["A+ctrl"] * 60), kind="gem_group", seed=0, label_space="legacy")
    with pytest.raises(InputError, match=r"one lane only \(7\); set split\.kind=cell"):
        split_cells(lanes({"7": {"A+ctrl": 60}}), kind="gem_group", seed=0, label_space="legacy")
    with pytest.raises(InputError, match="too few on either side of the lanes"):
        split_cells(lanes({"1": {"A+ctrl": 60}, "2": {"B+ctrl": 60}}), kind="gem_group", seed=0, label_space="legacy")


def test_learning_curves_keep_the_queries_and_nest_the_known_cells():
    obs = frame([f"G{i % 3}+ctrl" for i in range(300)])
    parts = {
        share: split_cells(obs, seed=1, label_space="legacy", known_fraction=share).set_index("cell")
        for share in (1.0, 0.5, 0.1, 0.001)
    }
    queries = [set(part.index[part["part"] == "query"]) for part in parts.values()]
    assert len(queries[0]) == 60
    assert all(found == queries[0] for found in queries)
    known = [set(part.index[part["part"] != "query"]) for part in parts.values()]
    assert [len(cells) for cells in known] == [240, 120, 24, 6]
    assert known[0] > known[1] > known[2] > known[3]
    assert parts[0.001]["part"].value_counts().to_dict() == {"query": 60, "reference": 3, "validation": 3}
