"""Averages and fitted sums of log-probabilities by hand, and that validation alone decides the weights."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import check_grad
from scipy.special import log_softmax

from reverse_perturbation.errors import InputError
from reverse_perturbation.models import combine
from reverse_perturbation.models.combine import average, fit_weights, in_order, weighted
from reverse_perturbation.retrieval.predictions import Predictions

CONDITIONS = np.array(["A+ctrl", "B+ctrl", "C+ctrl"], dtype=object)
N = 8000


def predictions(log_proba, conditions=CONDITIONS, screen="the screen", first=0, **arrays) -> Predictions:
    log_proba = np.asarray(log_proba)
    cell_ids = np.array([f"c{i + first}" for i in range(len(log_proba))], dtype=object)
    arrays = {"embedding": None, **arrays}
    return Predictions(cell_ids, log_proba, conditions, screen_sha256=screen, **arrays)


def embedded(embedding, control_mean=None, **changes) -> Predictions:
    """Of a model without class probabilities."""
    cell_ids = np.array([f"c{i}" for i in range(len(embedding))], dtype=object)
    return replace(Predictions(cell_ids, None, None, embedding, "the screen", control_mean), **changes)


@pytest.fixture
def case() -> tuple[dict[str, Predictions], np.ndarray, np.ndarray]:
    """Two calibrated models that err independently, one that knows nothing; labels and the validation rows.

    A model sees the true condition in normal noise of its own; the log-likelihoods are its logits.
    """
    rng = np.random.default_rng(0)
    truth = rng.integers(3, size=N)
    members = {"good": calibrated(truth, 1.5, rng), "fair": calibrated(truth, 1.0, rng)}
    members["noise"] = predictions(log_softmax(rng.normal(size=(N, 3)), axis=1))
    return members, CONDITIONS[truth], np.arange(0, N, 2)


def calibrated(truth: np.ndarray, strength: float, rng: np.random.Generator) -> Predictions:
    seen = strength * np.eye(3)[truth] + rng.normal(size=(len(truth), 3))
    return predictions(log_softmax(strength * seen, axis=1))


def cross_entropy(members: dict[str, Predictions], weights, labels, rows) -> float:
    total = sum(
        weight * member.log_proba.astype(float) for weight, member in zip(weights, members.values(), strict=True)
    )
    return -log_softmax(total, axis=1)[rows, np.searchsorted(CONDITIONS.astype(str), labels[rows].astype(str))].mean()


# ---- averages


def test_the_average_is_the_geometric_mean_of_the_probabilities():
    one, two = np.array([[0.6, 0.3, 0.1]]), np.array([[0.2, 0.7, 0.1]])
    found = average([predictions(np.log(one)), predictions(np.log(two))])
    mean = np.sqrt(one * two)
    assert np.exp(found.log_proba) == pytest.approx(mean / mean.sum(), rel=1e-6)
    assert list(found.conditions) == list(CONDITIONS)
    assert found.embedding is None
    assert (found.cell_ids == ["c0"]).all()
    assert found.screen_sha256 == "the screen"


def test_of_one_model_the_average_is_itself():
    given_ = predictions(np.log([[0.6, 0.3, 0.1], [0.1, 0.1, 0.8]]))
    assert average([given_]).log_proba == pytest.approx(given_.log_proba, abs=1e-6)


def test_columns_in_another_order_are_put_in_order():
    one, order = np.log([[0.6, 0.3, 0.1]]), [2, 0, 1]
    turned = predictions(one[:, order], CONDITIONS[order])
    found = average([turned, predictions(np.log([[0.2, 0.7, 0.1]]))])
    assert list(found.conditions) == list(CONDITIONS)
    expected = average([predictions(one), predictions(np.log([[0.2, 0.7, 0.1]]))])
    assert (found.log_proba == expected.log_proba).all()
    assert in_order(turned, CONDITIONS) == pytest.approx(one)


def test_without_class_probabilities_embeddings_are_joined():
    one, two = np.ones((4, 2)), np.full((4, 3), 2.0)
    found = average([embedded(one, np.zeros(2)), embedded(two, np.ones(3))])
    assert found.log_proba is None
    assert found.embedding.tolist() == [[1, 1, 2, 2, 2]] * 4
    assert found.control_mean.tolist() == [0, 0, 1, 1, 1]
    assert found.screen_sha256 == "the screen"
    assert average([embedded(one), embedded(two)]).control_mean is None


@pytest.mark.parametrize(
    ("other", "part"),
    [
        (predictions(np.zeros((2, 3)), first=1), "cell_ids"),
        (predictions(np.zeros((3, 3))), "cell_ids"),
        (predictions(np.zeros((2, 3)), screen="another"), "screen_sha256"),
        (predictions(np.zeros((2, 2)), CONDITIONS[:2]), "conditions"),
        (predictions(np.zeros((2, 3)), np.array(["A+ctrl", "B+ctrl", "D+ctrl"], dtype=object)), "conditions"),
    ],
)
def test_members_of_other_cells_or_conditions_are_refused(other, part):
    members = [predictions(np.zeros((2, 3))), other]
    message = f"predictions of several models differ in {part}; run `dvc repro`"
    labels, rows = np.array(["A+ctrl", "B+ctrl"], dtype=object), np.arange(2)
    for combined in (
        lambda: average(members),
        lambda: weighted(members, np.ones(2)),
        lambda: fit_weights({"a": members[0], "b": other}, labels, rows),
    ):
        with pytest.raises(InputError, match=message):
            combined()


def test_embeddings_of_other_cells_are_refused():
    one = embedded(np.ones((2, 3)))
    with pytest.raises(InputError, match="differ in cell_ids"):
        average([one, replace(one, cell_ids=one.cell_ids[::-1])])


def test_a_model_with_class_probabilities_is_not_averaged_with_one_without():
    with pytest.raises(InputError, match="differ in conditions"):
        average([embedded(np.ones((2, 3))), predictions(np.zeros((2, 3)))])


# ---- weighted sums


def test_a_weighted_sum_by_hand():
    one, two = np.array([[0.6, 0.3, 0.1]]), np.array([[0.2, 0.7, 0.1]])
    found = weighted([predictions(np.log(one)), predictions(np.log(two))], np.array([2.0, 0.5]))
    product = one**2 * two**0.5
    assert np.exp(found.log_proba) == pytest.approx(product / product.sum(), rel=1e-6)


def test_without_weights_nothing_is_known():
    found = weighted([predictions(np.log([[0.6, 0.3, 0.1]]))], np.zeros(1))
    assert np.exp(found.log_proba) == pytest.approx(np.full((1, 3), 1 / 3))


@settings(max_examples=100, deadline=None)
@given(
    logits=st.lists(st.tuples(*[st.floats(-5, 5)] * 3), min_size=1, max_size=4),
    others=st.lists(st.tuples(*[st.floats(-5, 5)] * 3), min_size=4, max_size=4),
    weight=st.floats(0.1, 10),
    order=st.permutations(range(3)),
)
def test_with_weight_on_one_member_alone_it_ranks_as_that_member(logits, others, weight, order):
    """But for ties: what float32 tells apart after the sum, it told apart before, in the same order."""
    alone = predictions(log_softmax(np.array(logits), axis=1)[:, order], CONDITIONS[list(order)])
    other = predictions(log_softmax(np.array(others[: len(logits)]), axis=1))
    found = weighted([other, alone], np.array([0.0, weight])).log_proba.astype(float)
    ours = in_order(alone, CONDITIONS)
    before, after = (values[:, :, None] - values[:, None, :] for values in (ours, found))
    assert (before[after > 0] > 0).all()
    assert after == pytest.approx(weight * before, abs=1e-4)


# ---- fitted weights


def test_the_gradient_agrees_with_finite_differences(case, monkeypatch):
    members, labels, rows = case
    minimize, errors = combine.minimize, []

    def checked(function, start, **settings):
        for weights in (start, np.array([0.0, 2.0, 0.7]), np.array([1.3, 0.1, 0.4])):
            assert function(weights)[0] == pytest.approx(cross_entropy(members, weights, labels, rows))
            errors.append(check_grad(lambda w: function(w)[0], lambda w: function(w)[1], weights))
        return minimize(function, start, **settings)

    monkeypatch.setattr(combine, "minimize", checked)
    fit_weights(members, labels, rows)
    assert len(errors) == 3
    assert max(errors) < 1e-6


def test_the_weights_are_the_best_of_a_grid(case):
    members, labels, rows = case
    two = {name: members[name] for name in ("good", "fair")}
    found = fit_weights(two, labels, rows)
    least = cross_entropy(two, list(found.values()), labels, rows)
    grid = np.linspace(0, 2, 41)
    values = {(a, b): cross_entropy(two, (a, b), labels, rows) for a in grid for b in grid}
    best = min(values, key=lambda pair: values[pair])
    assert list(found.values()) == pytest.approx(best, abs=0.05)
    assert least <= values[best] + 1e-9


def test_calibrated_models_that_err_independently_get_a_weight_of_about_1(case):
    """The sum of their log-likelihoods is that of both."""
    members, labels, rows = case
    found = fit_weights(members, labels, rows)
    assert list(found) == ["good", "fair", "noise"]
    assert found["good"] == pytest.approx(1, abs=0.1)
    assert found["fair"] == pytest.approx(1, abs=0.1)


def test_what_knows_nothing_gets_a_weight_of_about_0(case):
    members, labels, rows = case
    assert 0 <= fit_weights(members, labels, rows)["noise"] < 0.1


def test_an_overconfident_member_gets_less_than_the_same_calibrated(case):
    """Three times the log-probabilities are worth a third of the weight, and the combination is the same."""
    members, labels, rows = case
    over = log_softmax(3 * members["good"].log_proba.astype(float), axis=1)
    before = fit_weights(members, labels, rows)
    confident = members | {"good": predictions(over)}
    after = fit_weights(confident, labels, rows)
    assert after["good"] == pytest.approx(before["good"] / 3, rel=1e-2)
    assert after["fair"] == pytest.approx(before["fair"], rel=1e-2)
    made = [weighted(list(m.values()), np.array(list(w.values()))) for m, w in ((members, before), (confident, after))]
    assert made[0].log_proba == pytest.approx(made[1].log_proba, abs=0.02)


def test_no_weight_is_negative(case):
    """A model that is wrong on purpose would get a negative one."""
    members, labels, rows = case
    wrong = predictions(log_softmax(-members["good"].log_proba.astype(float), axis=1))
    found = fit_weights({"wrong": wrong, "fair": members["fair"]}, labels, rows)
    assert found["wrong"] == 0
    assert found["fair"] > 0
    assert fit_weights({"wrong": wrong}, labels, rows) == {"wrong": 0}


def test_only_the_validation_rows_decide(case):
    """Neither what is predicted for other cells nor their labels."""
    members, labels, rows = case
    others = np.setdiff1d(np.arange(N), rows)
    rng = np.random.default_rng(1)

    def changed(member: Predictions) -> Predictions:
        log_proba = member.log_proba.copy()
        log_proba[others] = log_softmax(10 * rng.normal(size=(len(others), 3)), axis=1)
        return replace(member, log_proba=log_proba)

    other_labels = labels.copy()
    other_labels[others] = rng.choice(CONDITIONS, len(others))
    before = fit_weights(members, labels, rows)
    assert fit_weights({name: changed(member) for name, member in members.items()}, other_labels, rows) == before
    assert fit_weights(members, labels, others) != before


def test_the_order_of_columns_and_of_members_does_not_matter(case):
    members, labels, rows = case
    order = [2, 0, 1]
    turned = replace(members["good"], log_proba=members["good"].log_proba[:, order], conditions=CONDITIONS[order])
    before = fit_weights(members, labels, rows)
    assert fit_weights(members | {"good": turned}, labels, rows) == before
    assert fit_weights({"turned": turned} | members, labels, rows)["fair"] == pytest.approx(before["fair"], abs=1e-3)
    again = fit_weights(dict(reversed(members.items())), labels, rows)
    assert again == pytest.approx(before, abs=1e-3)


def test_without_a_validation_cell_there_is_an_error(case):
    members, labels, _ = case
    with pytest.raises(InputError, match=r"no validation cell to fit weights on; raise split\.validation_fraction"):
        fit_weights(members, labels, np.array([], dtype=int))


def test_a_fitted_sum_is_no_worse_than_any_member_on_its_own_cells(case):
    """Each member alone is among the sums."""
    members, labels, rows = case
    found = fit_weights(members, labels, rows)
    together = cross_entropy(members, list(found.values()), labels, rows)
    for weights in np.eye(3):
        assert together < cross_entropy(members, weights, labels, rows)
