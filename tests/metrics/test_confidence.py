"""Confidence: definitions by hand and by brute force, and nothing that depends on the order of the queries."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reverse_perturbation.metrics.confidence import (
    COVERAGES,
    accuracy_at_coverages,
    aurc,
    certainty,
    confidence_auc,
    coverage_curve,
    margin,
    roc_auc,
)


def with_margins(margins: list[float]) -> np.ndarray:
    """Scores of three conditions whose two best differ by these margins."""
    return np.array([[0.0, 1.0 + m, 1.0] for m in margins])


cases = st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=40)


def test_margin_by_hand():
    assert margin(np.array([[0.1, 0.7, 0.2], [0.4, 0.4, 0.2], [-3.0, -5.0, -4.0]])) == pytest.approx([0.5, 0, 1])
    with pytest.raises(ValueError, match="two conditions"):
        margin(np.ones((3, 1)))


def test_curve_by_hand():
    """41 queries of falling confidence of which the first 10 are right: accuracy is 1 up to coverage 0.25."""
    scores, correct = with_margins(list(np.linspace(1, 0.1, 41))), np.arange(41) < 10
    curve = coverage_curve(scores, correct)
    assert list(curve.columns) == ["coverage", "accuracy"]
    assert curve["coverage"].tolist() == pytest.approx([0.05 * i for i in range(1, 21)])
    assert curve["accuracy"].tolist()[:5] == [1] * 5
    assert curve["accuracy"].iloc[9] == pytest.approx(1 / 2)
    assert curve["accuracy"].iloc[-1] == pytest.approx(10 / 41)


def test_the_earlier_projects_definition():
    """Sorted by margin, max(1, int(coverage * n)) answered, trapezoid: written out for distinct margins."""
    rng = np.random.default_rng(0)
    scores, correct = rng.random((137, 9)), rng.random(137) < 0.3
    order = np.argsort(-margin(scores))
    accuracies = [correct[order][: max(1, int(c * 137))].mean() for c in np.linspace(0.05, 1.0, 20)]
    steps = [(a + b) / 2 * 0.05 for a, b in itertools.pairwise(accuracies)]
    assert confidence_auc(scores, correct) == pytest.approx(sum(steps))


def test_its_bounds():
    scores = with_margins([0.3, 0.2, 0.1])
    assert confidence_auc(scores, np.ones(3)) == pytest.approx(0.95)
    assert confidence_auc(scores, np.zeros(3)) == 0


def test_aurc_by_hand():
    """Errors among the first 1, 2, 3, 4: 0, 0, 1/3, 1/2."""
    assert aurc(with_margins([0.4, 0.3, 0.2, 0.1]), np.array([1, 1, 0, 0])) == pytest.approx((1 / 3 + 1 / 2) / 4)


@given(cases)
def test_roc_auc_is_the_share_of_pairs_in_order(case):
    margins, correct = np.array([m for m, _ in case], dtype=float), np.array([c for _, c in case])
    pairs = [np.sign(a - b) / 2 + 0.5 for a in margins[correct] for b in margins[~correct]]
    expected = np.mean(pairs) if pairs else 0.5
    assert roc_auc(with_margins(list(margins)), correct) == pytest.approx(expected)


@given(cases, st.randoms(use_true_random=False))
def test_the_order_of_queries_does_not_matter(case, random):
    """Many margins are equal here; a stable sort alone would depend on the order of the rows."""
    shuffled = random.sample(case, len(case))
    found = []
    for rows in (case, shuffled):
        scores, correct = with_margins([m for m, _ in rows]), np.array([c for _, c in rows])
        found.append([confidence_auc(scores, correct), aurc(scores, correct), roc_auc(scores, correct)])
    assert found[0] == pytest.approx(found[1])


def test_without_confidence_accuracy_is_the_same_at_every_coverage():
    correct = np.array([1, 0, 0, 1, 0, 0, 0, 1])
    assert accuracy_at_coverages(with_margins([0.5] * 8), correct) == pytest.approx(np.full(20, 3 / 8))


@given(cases)
def test_full_coverage_is_plain_accuracy(case):
    correct = np.array([c for _, c in case])
    found = accuracy_at_coverages(with_margins([m for m, _ in case]), correct)
    assert COVERAGES[-1] == 1
    assert found[-1] == pytest.approx(correct.mean())


def test_every_query_needs_an_outcome():
    with pytest.raises(ValueError, match="3 queries have scores and 2 an outcome"):
        aurc(with_margins([0.1, 0.2, 0.3]), np.array([1, 0]))


def test_certainty_by_hand():
    found = certainty(np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [1 / 3, 1 / 3, 1 / 3]]))
    assert found == pytest.approx([0, -np.log(2), -np.log(3)])


@given(cases)
def test_another_confidence_takes_the_place_of_the_margin(case):
    """Given the margins of other scores, the values are those of the other scores."""
    margins, correct = [m for m, _ in case], np.array([c for _, c in case], dtype=float)
    other, own = with_margins(margins), with_margins(margins[::-1])
    for measure in (aurc, confidence_auc, roc_auc):
        assert measure(own, correct, margin(other)) == measure(other, correct)
