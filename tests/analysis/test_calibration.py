"""Temperature and calibration error: by hand, and on answers drawn from known probabilities."""

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from reverse_perturbation.analysis.calibration import (
    error_if_calibrated,
    expected_calibration_error,
    fit_temperature,
    logits,
    negative_log_likelihood,
    reliability,
    tables,
)
from reverse_perturbation.retrieval.evaluate import Scores
from reverse_perturbation.sections import Analysis


def binary(*confidences: float) -> np.ndarray:
    """Logits of two conditions of which the first has these probabilities."""
    p = np.array(confidences)
    return np.log(np.column_stack([p, 1 - p]))


def drawn(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Log probabilities of five conditions, and truths drawn from them."""
    rng = np.random.default_rng(seed)
    log_p = log_softmax(2 * rng.normal(size=(n, 5)), axis=1)
    return log_p, (rng.random((n, 1)) > np.exp(log_p).cumsum(axis=1)).sum(axis=1)


def test_error_by_hand():
    """Two bins have queries: 0.6 and 0.65, half right, and 0.9, 0.95 and 1.0, two of three right."""
    table = reliability(binary(0.6, 0.65, 0.9, 0.95, 1 - 1e-12), np.array([1, 0, 1, 1, 0]), bins=4)
    assert table["bin"].tolist() == [2, 3]
    assert table["queries"].tolist() == [2, 3]
    assert table["confidence"].tolist() == pytest.approx([0.625, 0.95])
    assert table["accuracy"].tolist() == pytest.approx([0.5, 2 / 3])
    assert expected_calibration_error(table) == pytest.approx((2 * 0.125 + 3 * (0.95 - 2 / 3)) / 5)


def test_a_bin_holds_its_upper_end_and_not_its_lower():
    table = reliability(binary(0.5, 0.5 + 1e-9), np.array([1, 1]), bins=2)
    assert table["queries"].tolist() == [1, 1]


@pytest.mark.parametrize("temperature", [0.2, 1.0, 5.0])
def test_the_temperature_that_was_applied_is_found(temperature):
    log_p, truth = drawn(20_000)
    assert fit_temperature(log_p * temperature, truth) == pytest.approx(temperature, rel=0.03)


def test_the_temperature_by_hand():
    """Of four answers given with log-odds of 4, three are right: the odds are 3, so the temperature is 4 / log 3."""
    found = fit_temperature(np.tile([4.0, 0.0], (4, 1)), np.array([0, 0, 0, 1]))
    assert found == pytest.approx(4 / np.log(3), rel=1e-4)


def test_no_other_temperature_is_better():
    log_p, truth = drawn(500)
    own = fit_temperature(log_p * 3, truth)
    best = negative_log_likelihood(log_p * 3 / own, truth)
    assert all(negative_log_likelihood(log_p * 3 / (own * f), truth) > best for f in (0.5, 0.9, 1.1, 2))


def test_tempering_corrects_an_overconfident_model():
    log_p, truth = drawn(20_000)
    right = (log_p.argmax(axis=1) == truth).astype(float)
    before, after = (expected_calibration_error(reliability(log_p * f, right, 15)) for f in (4, 1))
    assert before > 0.1
    assert after < 0.02


def test_luck_alone_shows_an_error_that_falls_with_the_number_of_queries():
    log_p, truth = drawn(400)
    luck = error_if_calibrated(log_p, 15, draws=200, seed=0)
    right = (log_p.argmax(axis=1) == truth).astype(float)
    assert expected_calibration_error(reliability(log_p, right, 15)) == pytest.approx(luck, rel=0.6)
    assert error_if_calibrated(np.tile(log_p, (16, 1)), 15, draws=50, seed=0) == pytest.approx(luck / 4, rel=0.2)


def test_the_temperature_is_that_of_the_cells_held_out_whatever_the_queries():
    config = Analysis(bins=15, similar=0.5, cells_per_query=[1], draws=2, seed=0)
    names = np.array(list("ABCDE"), dtype=object)
    held_out, overconfident = (
        Scores(np.arange(300), names[truth], names, softmax(sharper * log_p, axis=1))
        for sharper, (log_p, truth) in ((1, drawn(300)), (4, drawn(300, seed=1)))
    )
    expected = fit_temperature(*drawn(300))
    found = tables(overconfident, held_out, "classifier", config)["calibration"]["temperature"]
    assert found.tolist() == pytest.approx([expected], rel=1e-3)
    assert expected < 2, "that of the queries would be 4"


def test_probabilities_come_back_from_their_logits_and_similarities_are_left_alone():
    p = softmax(drawn(5)[0], axis=1)
    assert softmax(logits(p, "classifier"), axis=1) == pytest.approx(p)
    assert np.isfinite(logits(np.array([[1.0, 0.0]]), "classifier")).all()
    assert (logits(-p, "bootstrap") == -p).all()
