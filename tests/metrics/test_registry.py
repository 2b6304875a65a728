"""Metrics on rankings worked out by hand, against brute force and other libraries, and at chance."""

import dataclasses
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import label_ranking_average_precision_score, ndcg_score, top_k_accuracy_score

from reverse_perturbation.analysis import cells_per_query, errors, probe
from reverse_perturbation.comparison import compare, grid, verdict
from reverse_perturbation.conditions import genes_of
from reverse_perturbation.errors import InputError
from reverse_perturbation.metrics import registry
from reverse_perturbation.metrics.ranks.per_query import exact_hit, graded_ndcg, ndcg, reciprocal_rank, relevant_hit
from reverse_perturbation.metrics.ranks.ranking import Ranking, jaccard
from reverse_perturbation.metrics.registry import METRICS, Place, chance, compute, hit_curve, per_query, shown_in
from reverse_perturbation.report import tables
from reverse_perturbation.stages import evaluate
from reverse_perturbation.studies import screens

# One twin pair, a double that shares genes, and one that shares none.
CONDITIONS = np.array(["A+ctrl", "ctrl+A", "B+ctrl", "A+B", "C+ctrl"], dtype=object)
FOUR = np.array(["A+ctrl", "B+ctrl", "A+B", "C+ctrl"], dtype=object)
MANY = np.array([*CONDITIONS, *(f"G{i}+ctrl" for i in range(7)), "G0+G1", "B+G2"], dtype=object)  # above the last cut
LOG3 = np.log2(3)
# Metrics with the properties below; one added to the registry may have others.
FAMILIES = ("exact_hit", "relevant_hit", "macro_hit", "mrr", "ndcg", "graded_ndcg")
RANKED = [metric.name for metric in METRICS if metric.name.partition("@")[0] in FAMILIES]
OF_ALL_QUERIES = ["confidence_auc", "aurc", "confidence_roc_auc"]


@st.composite
def scored(draw: st.DrawFn, distinct: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Scores of 1 to 8 queries over CONDITIONS, with many ties unless they are to be distinct, and labels."""
    n = draw(st.integers(1, 8))
    if distinct:
        rows = [draw(st.permutations(range(len(CONDITIONS)))) for _ in range(n)]
    else:
        value = st.integers(0, 3)
        rows = [draw(st.lists(value, min_size=len(CONDITIONS), max_size=len(CONDITIONS))) for _ in range(n)]
    labels = draw(st.lists(st.sampled_from(list(CONDITIONS)), min_size=n, max_size=n))
    return np.array(rows, dtype=np.float32), np.array(labels, dtype=object)


def test_a_ranking_without_ties_by_hand():
    """Order B, A+B, A, C for a cell of A: the truth is third, the double that shares A second."""
    scores, labels = np.array([[0.2, 0.9, 0.5, 0.1]]), np.array(["A+ctrl"], dtype=object)
    ranking = Ranking.of(scores, labels, FOUR)
    assert [exact_hit(ranking, k)[0] for k in (1, 2, 3, 4)] == [0, 0, 1, 1]
    assert [relevant_hit(ranking, k)[0] for k in (1, 2, 3, 4)] == [0, 1, 1, 1]
    found = compute(scores, labels, FOUR)
    assert found["mrr"] == found["mrr@10"] == pytest.approx(1 / 3)
    assert found["ndcg@5"] == found["ndcg@10"] == pytest.approx(1 / 2)
    assert found["graded_ndcg@5"] == pytest.approx((0.5 / LOG3 + 1 / 2) / (1 + 0.5 / LOG3))


def test_a_ranking_with_ties_by_hand():
    """A, B and A+B share the first score for a cell of B: its ranks 1, 2, 3 have mean 2."""
    scores, labels = np.array([[0.5, 0.5, 0.5, 0.1]]), np.array(["B+ctrl"], dtype=object)
    ranking = Ranking.of(scores, labels, FOUR)
    assert [exact_hit(ranking, k)[0] for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1])
    assert [relevant_hit(ranking, k)[0] for k in (1, 2)] == pytest.approx([2 / 3, 1])
    found = compute(scores, labels, FOUR)
    assert found["mrr"] == pytest.approx(1 / 2)
    assert found["ndcg@5"] == pytest.approx((1 + 1 / LOG3 + 1 / 2) / 3)
    assert found["graded_ndcg@5"] == pytest.approx(0.5 * (1 + 1 / LOG3 + 1 / 2) / (1 + 0.5 / LOG3))


def test_a_tie_across_the_cut_by_hand():
    """One condition ahead, the truth level with two others: its ranks 2, 3, 4 have mean 3."""
    scores, labels = np.array([[0.5, 0.9, 0.5, 0.5]]), np.array(["C+ctrl"], dtype=object)
    ranking = Ranking.of(scores, labels, FOUR)
    assert [exact_hit(ranking, k)[0] for k in (1, 2, 3, 4)] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert reciprocal_rank(ranking)[0] == pytest.approx(1 / 3)
    assert reciprocal_rank(ranking, 2)[0] == 0
    assert ndcg(ranking, 3)[0] == pytest.approx((1 / LOG3 + 1 / 2) / 3)
    assert ndcg(ranking, 2)[0] == pytest.approx(1 / LOG3 / 3)
    assert ndcg(ranking, 1)[0] == 0


def test_ndcg_of_seven_tied_conditions_by_hand():
    """The truth is at each of seven places with probability 1/7; at its mean rank, 4, ndcg@5 would be 0.431."""
    conditions = np.array([f"G{i}+ctrl" for i in range(7)], dtype=object)
    found = compute(np.zeros((1, 7)), conditions[2:3], conditions)
    assert found["ndcg@5"] == pytest.approx((1 + 0.63093 + 0.5 + 0.43068 + 0.38685) / 7, abs=1e-5)
    assert found["ndcg@5"] == pytest.approx(0.4212, abs=1e-4)


def test_ndcg_without_ties_is_the_discount_at_the_rank_to_the_last_digit():
    scores = np.random.default_rng(0).permuted(np.tile(np.arange(40), (300, 1)), axis=1)
    conditions = np.array([f"G{i}+ctrl" for i in range(40)], dtype=object)
    ranking = Ranking.of(scores, np.full(300, "G7+ctrl", dtype=object), conditions)
    for k in (1, 5, 10, 40, 50):
        expected = np.where(ranking.rank <= k, 1 / np.log2(1 + ranking.rank), 0.0)
        assert ndcg(ranking, k).tolist() == expected.tolist()


def test_macro_hit_counts_conditions_not_cells():
    """Three cells of A, all found, and one of B, missed: 3/4 of the cells, but half of the conditions."""
    scores = np.array([[1, 0], [1, 0], [1, 0], [1, 0]])
    labels = np.array(["A+ctrl", "A+ctrl", "A+ctrl", "B+ctrl"], dtype=object)
    found = compute(scores, labels, np.array(["A+ctrl", "B+ctrl"], dtype=object))
    assert found["exact_hit@1"] == 0.75
    assert found["macro_hit@1"] == 0.5


def test_twins_and_shared_genes():
    gain = jaccard(np.array(["A+ctrl", "ctrl+A", "A+B", "B+C", "ctrl"], dtype=object))
    expected = [
        [1, 1, 1 / 2, 0, 0],
        [1, 1, 1 / 2, 0, 0],
        [1 / 2, 1 / 2, 1, 1 / 3, 0],
        [0, 0, 1 / 3, 1, 0],
        [0, 0, 0, 0, 1],
    ]
    assert gain == pytest.approx(np.array(expected)), "control shares no gene: A+ctrl and B+ctrl are not relevant"


@settings(deadline=None, max_examples=60)
@given(scored())
def test_against_every_order_of_the_ties(case):
    """Hits and discounted gains are means over all rankings that the scores allow."""
    scores, labels = case
    sets = [genes_of(condition) for condition in CONDITIONS]
    ranking = Ranking.of(scores, labels, CONDITIONS)
    for i, (row, label) in enumerate(zip(scores, labels, strict=True)):
        truth = list(CONDITIONS).index(label)
        gains = np.array([len(genes & sets[truth]) / len(genes | sets[truth]) for genes in sets])
        orders = [
            order
            for order in itertools.permutations(range(len(row)))
            if all(row[a] >= row[b] for a, b in itertools.pairwise(order))
        ]
        for k in (1, 2, 3, 5):
            discount = 1 / np.log2(np.arange(2, k + 2))
            ideal = np.sort(gains)[::-1][:k] @ discount
            exact = np.mean([truth in order[:k] for order in orders])
            binary = np.mean([discount[order.index(truth)] if truth in order[:k] else 0 for order in orders])
            relevant = np.mean([any(gains[c] > 0 for c in order[:k]) for order in orders])
            graded = np.mean([gains[list(order[:k])] @ discount / ideal for order in orders])
            assert exact_hit(ranking, k)[i] == pytest.approx(exact)
            assert relevant_hit(ranking, k)[i] == pytest.approx(relevant)
            assert ndcg(ranking, k)[i] == pytest.approx(binary)
            assert graded_ndcg(ranking, k)[i] == pytest.approx(graded)


@given(scored(distinct=True))
def test_against_scikit_learn(case):
    scores, labels = case
    found = compute(scores, labels, CONDITIONS)
    truth = (labels[:, None] == CONDITIONS[None, :]).astype(int)
    gain = jaccard(CONDITIONS)[truth.argmax(axis=1)]
    for k in (5, 10):
        assert found[f"ndcg@{k}"] == pytest.approx(ndcg_score(truth, scores, k=k))
        assert found[f"graded_ndcg@{k}"] == pytest.approx(ndcg_score(gain, scores, k=k))
    assert found["mrr"] == pytest.approx(label_ranking_average_precision_score(truth, scores))
    top = top_k_accuracy_score(truth.argmax(axis=1), scores, k=1, labels=range(len(CONDITIONS)))
    assert found["exact_hit@1"] == pytest.approx(top)


@given(scored(), st.randoms(use_true_random=False))
def test_the_order_of_queries_and_conditions_does_not_matter(case, random):
    scores, labels = case
    queries = random.sample(range(len(scores)), len(scores))
    columns = random.sample(range(len(CONDITIONS)), len(CONDITIONS))
    found = compute(scores[queries][:, columns], labels[queries], CONDITIONS[columns])
    assert found == pytest.approx(compute(scores, labels, CONDITIONS))


@given(scored())
def test_what_must_not_exceed_what(case):
    scores, labels = case
    ranking = Ranking.of(scores, labels, CONDITIONS)
    curve = hit_curve(scores, labels, CONDITIONS)
    assert list(curve["k"]) == [1, 2, 3, 4, 5], "not beyond the number of conditions"
    assert (np.diff(curve["exact_hit"]) >= -1e-12).all()
    assert (np.diff(curve["relevant_hit"]) >= -1e-12).all()
    assert curve[["exact_hit", "relevant_hit"]].iloc[-1].tolist() == pytest.approx([1, 1])
    for k in (1, 2, 3):
        assert (relevant_hit(ranking, k) >= exact_hit(ranking, k) - 1e-12).all()
    assert (reciprocal_rank(ranking) >= exact_hit(ranking, 1)).all()
    found = compute(scores, labels, CONDITIONS)
    for name in [*RANKED, *OF_ALL_QUERIES]:
        assert -1e-12 <= found[name] <= 1 + 1e-12, name


@given(scored(), st.floats(0.1, 10), st.floats(-5, 5))
def test_only_the_order_of_scores_matters(case, factor, shift):
    scores, labels = case
    moved = per_query("graded_ndcg@5", scores.astype(float) * factor + shift, labels, CONDITIONS)
    assert moved == pytest.approx(per_query("graded_ndcg@5", scores, labels, CONDITIONS))


def test_chance_is_the_mean_over_all_rankings():
    orders = np.array(list(itertools.permutations(range(len(CONDITIONS)))), dtype=float)
    scores = np.tile(orders, (2, 1))
    labels = np.repeat(np.array(["A+B", "ctrl+A"], dtype=object), len(orders))
    found, expected = compute(scores, labels, CONDITIONS), chance(labels, CONDITIONS)
    assert found.keys() == expected.keys()
    for name in RANKED:
        assert found[name] == pytest.approx(expected[name]), name


def test_chance_where_the_list_is_longer_than_every_cut():
    """Fifteen singles; over fifteen queries the truth takes every rank once, and no other condition is relevant."""
    conditions = np.array([f"G{i}+ctrl" for i in range(15)], dtype=object)
    scores = np.array([np.roll(np.arange(15), shift) for shift in range(15)])
    labels = np.full(15, "G0+ctrl", dtype=object)
    found, expected = compute(scores, labels, conditions), chance(labels, conditions)
    assert expected["mrr@10"] == pytest.approx(sum(1 / rank for rank in range(1, 11)) / 15)
    for name in RANKED:
        assert found[name] == pytest.approx(expected[name]), name


@pytest.mark.parametrize("name", [metric.name for metric in METRICS])
def test_every_chance_level_is_that_of_random_scores(random_values, name):
    """200 rounds of 400 queries; seeded, so four standard errors of their mean are never exceeded by luck."""
    values, expected = random_values
    error = values[name].std(ddof=1) / len(values) ** 0.5
    assert 0 < error < 0.02 * max(0.25, abs(expected[name])), "small enough to tell a wrong level"
    assert values[name].mean() == pytest.approx(expected[name], abs=4 * error)


@pytest.fixture(scope="module")
def random_values() -> tuple[pd.DataFrame, dict[str, float]]:
    """Every metric of random scores, a row a round, and the chance levels; more conditions than the last cut."""
    rng = np.random.default_rng(0)
    labels = rng.choice(MANY, 400, p=rng.dirichlet(np.ones(len(MANY))))
    rounds = [compute(rng.random((len(labels), len(MANY))), labels, MANY) for _ in range(200)]
    return pd.DataFrame(rounds), chance(labels, MANY)


def test_chance_on_the_real_labels(row_labels):
    """The figures the earlier project was published with: 0.0035, 0.010 and 0.032."""
    counts = pd.read_csv(row_labels)["condition"].value_counts()
    n_query = np.maximum(10, (0.2 * counts).astype(int))
    labels = np.repeat(counts.index.to_numpy(dtype=object), n_query)
    found = chance(labels, counts.index.to_numpy(dtype=object))
    assert (len(counts), len(labels)) == (282, 16_651)
    assert found["exact_hit@1"] == pytest.approx(0.0035, abs=5e-5)
    assert found["mrr@10"] == pytest.approx(0.010, abs=5e-4)
    assert found["relevant_hit@1"] == pytest.approx(0.032, abs=5e-4)


def test_equal_scores_are_never_above_chance():
    labels = np.tile(CONDITIONS, 4)
    found = compute(np.zeros((20, len(CONDITIONS))), labels, CONDITIONS)
    expected = chance(labels, CONDITIONS)
    assert found["mrr"] == pytest.approx(1 / 3)
    assert found["mrr"] < expected["mrr"]
    for name in [*RANKED, *OF_ALL_QUERIES]:
        if name not in ("mrr", "mrr@10"):
            assert found[name] == pytest.approx(expected[name]), name


def test_perfect_scores():
    labels = np.tile(CONDITIONS, 8)
    found = compute(np.tile(np.eye(len(CONDITIONS)), (8, 1)), labels, CONDITIONS)
    assert found.pop("confidence_auc") == pytest.approx(0.95)
    assert found.pop("aurc") == pytest.approx(0)
    assert found.pop("confidence_roc_auc") == 0.5, "all answers are right: no pair to order"
    for name in RANKED:
        if not name.startswith("graded_ndcg"):  # below 1 where a shared gene is not ranked second
            assert found[name] == pytest.approx(1), name


def test_the_registry_describes_every_metric():
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    assert all(metric.description for metric in METRICS)
    assert registry.REGISTRY["aurc"].heading == "aurc (lower is better)"
    assert registry.heading("mrr") == "mrr"


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_good_scores_are_better_than_chance_in_the_stated_direction(metric):
    """Of 600 queries half have the truth far above the rest, half have it hardly above."""
    rng = np.random.default_rng(0)
    labels = rng.choice(MANY, 600)
    scores = rng.normal(size=(600, len(MANY))) + rng.choice([0.2, 3.0], (600, 1)) * (labels[:, None] == MANY[None, :])
    better = compute(scores, labels, MANY)[metric.name] - chance(labels, MANY)[metric.name]
    assert better > 0 if metric.direction == "higher" else better < 0


# ---- where metrics are shown


def test_places_that_need_each_other():
    """Each of these pairs is read together: a metric in the first place alone would be a KeyError in a stage."""
    for inner, outer in (("tested", "comparison"), ("summary", "comparison"), ("brief", "grid")):
        assert {*shown_in(inner)} <= {*shown_in(outer)}, f"every metric of {inner} is one of {outer}"
    assert {"exact_hit@1", "mrr", "ndcg@5"} <= {*shown_in("comparison")}, "the targets are of these"


@pytest.mark.parametrize("place", ["tested", "grid", "brief", "conditions"])
def test_places_of_single_queries_show_means_over_queries(place):
    scores, labels = np.eye(len(CONDITIONS)), CONDITIONS
    assert shown_in(place)
    for name in shown_in(place):
        assert per_query(name, scores, labels, CONDITIONS).shape == (len(CONDITIONS),)


def test_one_value_for_all_queries_is_refused_in_places_of_single_queries(monkeypatch):
    one = registry.Metric(
        "spread", "higher", "-", lambda ranking: 0.5, lambda candidates: 0.5, frozenset(["grid", "tables"])
    )
    monkeypatch.setattr(registry, "METRICS", (one,))
    with pytest.raises(
        InputError,
        match=r"metric spread: gives one value .* but is shown in grid, where each query needs one; leave",
    ):
        compute(np.eye(5), CONDITIONS, CONDITIONS)
    shown = dataclasses.replace(one, shown=frozenset(["tables", "comparison", "summary"]))
    monkeypatch.setattr(registry, "METRICS", (shown,))
    assert compute(np.eye(5), CONDITIONS, CONDITIONS) == {"spread": 0.5}


def test_every_place_shows_what_the_registry_says():
    """No list of metrics beside the registry's."""
    shown = {place: shown_in(place) for place in get_args(Place)}
    assert all(shown.values())
    assert (shown["comparison"], shown["tested"]) == (compare.COMPARED, compare.TESTED)
    assert shown["summary"] == verdict.SHOWN
    assert (shown["tables"], shown["tested"]) == (tables.HEADLINE, screens.TESTED)
    assert (shown["grid"], shown["brief"]) == (grid.METRICS, grid.INTERVALS)
    assert shown["conditions"] == errors.PER_CONDITION
    assert cells_per_query.METRICS == probe.METRICS == evaluate.VALIDATED == shown["brief"]


def test_a_metric_added_to_the_registry_appears_where_it_says():
    """The newcomer's edit, one entry in METRICS, made in a copy of the file that another process imports in its place.

    The lists of shown metrics are made when their modules are imported, so no monkeypatch in this process could show
    that one entry is enough.
    """
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "with_new_metric.py")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    places = json.loads(done.stdout)
    assert places.pop("metrics file") == ["exact_hit@3", "exact_hit@4"], "which has every metric"
    assert {name: found for name, found in places.items() if found != ["exact_hit@3"]} == {}
    assert len(places) == 16


def test_values_per_query_have_the_metric_as_their_mean():
    rng = np.random.default_rng(1)
    scores, labels = rng.integers(0, 4, (50, len(CONDITIONS))), rng.choice(CONDITIONS, 50)
    found = compute(scores, labels, CONDITIONS)
    for name in RANKED:
        values = per_query(name, scores, labels, CONDITIONS)
        assert values.shape == (50,)
        assert values.mean() == pytest.approx(found[name]), name
    for name in ("confidence_auc", "accuracy"):
        with pytest.raises(KeyError, match=name):
            per_query(name, scores, labels, CONDITIONS)


def test_a_label_that_is_no_candidate_is_an_error():
    with pytest.raises(InputError, match=r"D\+ctrl \(1 labels\).*not among the conditions"):
        compute(np.zeros((2, 5)), np.array(["A+ctrl", "D+ctrl"], dtype=object), CONDITIONS)


def test_a_missing_score_is_an_error():
    scores = np.zeros((1, 5))
    scores[0, 3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        compute(scores, np.array(["A+ctrl"], dtype=object), CONDITIONS)


@pytest.mark.parametrize("shape", [(2, 5), (1, 4), (0, 5)])
def test_scores_that_do_not_fit_are_an_error(shape):
    with pytest.raises(ValueError, match="expected"):
        compute(np.zeros(shape), np.array(["A+ctrl"], dtype=object)[: shape[0]], CONDITIONS)
