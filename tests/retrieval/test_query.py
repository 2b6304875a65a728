"""Pseudo-bulks: which cells are averaged."""

import numpy as np
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from reverse_perturbation.models.linear.logreg import LogisticRegression
from reverse_perturbation.retrieval.query import pseudobulk
from reverse_perturbation.sections import Query


def config(cells_per_query: int = 3, draws: int = 4, seed: int = 42) -> Query:
    return Query(kind="pseudobulk", cells_per_query=cells_per_query, draws=draws, seed=seed)


@given(
    st.lists(st.sampled_from(["A+ctrl", "B+ctrl", "A+B"]), min_size=1, max_size=40),
    st.integers(1, 6),
    st.integers(1, 5),
)
def test_no_cell_twice_and_no_condition_lost(labels, cells, draws):
    labels = np.array(labels, dtype=object)
    found = pseudobulk(labels, config(cells, draws))
    sizes = {name: int((labels == name).sum()) for name in set(labels)}
    assert found.skipped == {name: n for name, n in sizes.items() if n < cells}
    enough = sorted(name for name, n in sizes.items() if n >= cells)
    assert found.labels.tolist() == [name for name in enough for _ in range(draws)]
    assert found.groups.shape == (draws * len(enough), cells)
    for group, label in zip(found.groups, found.labels, strict=True):
        assert len(set(group)) == cells
        assert set(labels[group]) == {label}


def test_draws_differ_and_follow_the_seed():
    labels = np.full(50, "A+ctrl", dtype=object)
    first, again, other = (pseudobulk(labels, config(10, 4, seed)).groups for seed in (1, 1, 2))
    assert (first == again).all()
    assert len({tuple(sorted(group)) for group in np.concatenate([first, other])}) == 8


def test_draws_do_not_depend_on_other_conditions():
    labels = np.array(["A+ctrl"] * 9 + ["B+ctrl"] * 9, dtype=object)
    assert (pseudobulk(labels, config()).groups[:4] == pseudobulk(labels[:9], config()).groups).all()


def test_all_conditions_too_small():
    found = pseudobulk(np.array(["A+ctrl", "B+ctrl"], dtype=object), config())
    assert found.groups.shape == (0, 3)
    assert len(found.labels) == 0
    assert found.skipped == {"A+ctrl": 1, "B+ctrl": 1}


def test_averaging_log_probabilities_ranks_as_averaging_the_inputs_of_a_linear_model():
    rng = np.random.default_rng(0)
    expression = sp.csr_matrix(rng.random((60, 8)).astype(np.float32))
    labels = rng.choice(np.array(["A+ctrl", "B+ctrl", "A+B"], dtype=object), 60)
    model = LogisticRegression("none", 1.0, 300).fit(expression, labels)
    groups = pseudobulk(labels, config()).groups
    of_predictions = model.log_proba(expression)[groups].mean(axis=1)
    of_inputs = model.log_proba(sp.csr_matrix(expression.toarray()[groups].mean(axis=1)))
    constant = of_predictions - of_inputs
    assert np.ptp(constant, axis=1).max() < 1e-5, "they differ by the normalisation of each query alone"
    assert np.abs(constant).max() > 1e-4
