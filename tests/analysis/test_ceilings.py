"""Ceilings on planted data: 1 without noise, chance in pure noise, and twins that cannot be told apart."""

import numpy as np
import pytest

from reverse_perturbation.analysis.ceilings import split_half, twin_scores
from reverse_perturbation.errors import InputError
from reverse_perturbation.metrics import registry

LABELS = np.repeat(np.array([f"G{i}+ctrl" for i in range(8)], dtype=object), 24)


def screen(signal: float, seed: int = 0) -> np.ndarray:
    """Cells of 8 conditions in 8 dimensions: unit noise around a mean a condition."""
    rng = np.random.default_rng(seed)
    return signal * np.eye(8)[np.repeat(np.arange(8), 24)] + rng.normal(size=(len(LABELS), 8))


def hits(found, cells_per_query: str) -> float:
    return float(found.loc[found["cells_per_query"] == cells_per_query, "exact_hit@1"].mean())


def test_without_noise_it_is_one_and_in_pure_noise_chance():
    clear = split_half(screen(1e3), LABELS, [1, 4], draws=2, seed=0)
    assert (clear["exact_hit@1"] == 1).all()
    assert (clear["mrr"] == 1).all()
    noise = [split_half(screen(0, seed), LABELS, [1], draws=4, seed=0) for seed in range(6)]
    assert np.mean([hits(found, "1") for found in noise]) == pytest.approx(1 / 8, abs=0.04)


def test_it_rises_with_the_cells_averaged():
    found = split_half(screen(2), LABELS, [1, 4, 12], draws=10, seed=0)
    assert 1 / 8 + 0.2 < hits(found, "1") < hits(found, "4") - 0.1 < hits(found, "half")
    assert hits(found, "12") == hits(found, "half")


def test_each_cell_of_the_half_is_in_one_group_and_small_conditions_are_left_out():
    labels = np.concatenate([LABELS[:48], LABELS[48:57]])
    found = split_half(screen(5)[: len(labels)], labels, [1, 4, 5, 6], draws=3, seed=0)
    groups = found.set_index(["condition", "cells_per_query"])["groups"]
    assert groups["G0+ctrl", "1"] == 3 * 12
    assert groups["G0+ctrl", "5"] == 3 * 2
    assert groups["G0+ctrl", "half"] == 3
    assert ("G2+ctrl", "5") in groups.index
    assert ("G2+ctrl", "6") not in groups.index


def test_it_does_not_depend_on_anything_but_the_seed():
    first, again = (split_half(screen(1), LABELS, [1], draws=2, seed=7) for _ in range(2))
    assert first.equals(again)
    assert not first.equals(split_half(screen(1), LABELS, [1], draws=2, seed=8))


def test_two_conditions_are_enough():
    found = split_half(screen(1e3)[:48], LABELS[:48], [1], draws=1, seed=0)
    assert (found["exact_hit@1"] == 1).all()


def test_a_condition_with_too_few_cells_to_halve_is_no_candidate():
    labels, cells = LABELS[:51], screen(1e3)[:51]
    found = split_half(cells, labels, [1], draws=1, seed=0)
    assert set(found["condition"]) == {"G0+ctrl", "G1+ctrl"}
    with pytest.raises(InputError, match="two conditions of 4 reference and validation cells, found 1"):
        split_half(cells[:27], labels[:27], [1], draws=1, seed=0)


def test_the_cap_of_twins_by_hand():
    """Of eight queries of A, five are of the more frequent twin, which alone is ever first; B has no twin."""
    library = np.repeat(np.array(["A+ctrl", "ctrl+A", "B+ctrl"], dtype=object), [6, 4, 5])
    labels = np.repeat(np.array(["A+ctrl", "ctrl+A", "B+ctrl"], dtype=object), [5, 3, 2])
    conditions = np.array(["A+ctrl", "B+ctrl", "ctrl+A"], dtype=object)
    scores = twin_scores(labels, conditions, library)
    assert scores[0].tolist() == scores[5].tolist() == pytest.approx([0.6, 0, 0.4])
    assert scores[-1].tolist() == [0, 1, 0]
    found = registry.compute(scores, labels, conditions)
    assert found["exact_hit@1"] == pytest.approx(7 / 10)
    assert found["mrr"] == pytest.approx((7 + 3 / 2) / 10)
    assert found["exact_hit@5"] == found["relevant_hit@1"] == 1


def test_without_twins_the_cap_is_one():
    conditions = np.array(["A+B", "A+ctrl", "B+ctrl"], dtype=object)
    scores = twin_scores(conditions, conditions, np.repeat(conditions, 3))
    assert scores.tolist() == np.eye(3).tolist()
