"""Classes of errors and groups of conditions, by hand."""

import numpy as np
import pandas as pd
import pytest

from reverse_perturbation.analysis.errors import (
    CLASSES,
    answers,
    by_condition,
    by_group,
    confusion_classes,
    groups,
    relations,
)

CONDITIONS = np.array(["A+B", "A+ctrl", "C+ctrl", "D+ctrl", "ctrl+A"], dtype=object)
# C and A+ctrl have similar profiles; so have the twins, which are called twins.
SIMILARITY = np.eye(5)
for i, j, value in ((1, 2, 0.6), (1, 4, 0.9), (2, 3, 0.4)):
    SIMILARITY[i, j] = SIMILARITY[j, i] = value
RELATION = relations(CONDITIONS, SIMILARITY, 0.5)


def answered(*names: str) -> np.ndarray:
    return (np.array(names)[:, None] == CONDITIONS).astype(float)


def test_each_pair_gets_the_first_class_that_holds():
    named = [[CLASSES[place] for place in row] for row in RELATION]
    assert named[1] == ["shares a gene", "right", "similar profile", "unrelated", "twin"]
    assert named[0] == ["right", "shares a gene", "unrelated", "unrelated", "shares a gene"]
    assert named[2] == ["unrelated", "similar profile", "right", "unrelated", "unrelated"]
    assert (RELATION == RELATION.T).all()


def test_shares_chance_and_enrichment_by_hand():
    """Four cells of A: answered right, with the twin, and twice with what is unrelated."""
    labels = np.full(4, "A+ctrl", dtype=object)
    scores = answered("A+ctrl", "ctrl+A", "D+ctrl", "D+ctrl")
    found = confusion_classes(scores, labels, CONDITIONS, RELATION).set_index("class")
    assert found["share"].tolist() == pytest.approx([1 / 4, 1 / 4, 0, 0, 1 / 2])
    assert found["chance"].tolist() == pytest.approx([1 / 5] * 5)
    wrong = [(1 / 4) / (3 / 4) / (1 / 4), 0, 0, (1 / 2) / (3 / 4) / (1 / 4)]
    assert found["enrichment"].tolist()[1:] == pytest.approx(wrong)
    assert np.isnan(found["enrichment"]["right"])


def test_random_answers_are_at_chance_and_enriched_in_nothing():
    rng = np.random.default_rng(0)
    labels = rng.choice(CONDITIONS, 20_000)
    found = confusion_classes(rng.random((20_000, 5)), labels, CONDITIONS, RELATION)
    assert found["share"].to_numpy() == pytest.approx(found["chance"].to_numpy(), abs=0.015)
    assert found["enrichment"].to_numpy()[1:] == pytest.approx(np.ones(4), abs=0.1)


def test_all_right_has_no_enrichment():
    found = confusion_classes(answered(*CONDITIONS), CONDITIONS, CONDITIONS, RELATION)
    assert found["share"].tolist() == [1, 0, 0, 0, 0]
    assert found["enrichment"].isna().all()


def test_tied_answers_are_shared():
    scores = np.array([[0.5, 0.5, 0, 0, 0]])
    assert answers(scores).tolist() == [[0.5, 0.5, 0, 0, 0]]
    found = confusion_classes(scores, np.array(["A+ctrl"], dtype=object), CONDITIONS, RELATION).set_index("class")
    assert found["share"][["right", "shares a gene"]].tolist() == [0.5, 0.5]


def test_by_condition_by_hand():
    labels = np.array(["A+ctrl"] * 4 + ["D+ctrl"], dtype=object)
    scores = answered("A+ctrl", "A+B", "C+ctrl", "C+ctrl", "D+ctrl")
    found = by_condition(scores, labels, CONDITIONS, RELATION).set_index("condition")
    assert found.index.tolist() == ["A+ctrl", "D+ctrl"]
    assert found["queries"].tolist() == [4, 1]
    assert found["exact_hit@1"].tolist() == [0.25, 1]
    assert found["relevant_hit@1"].tolist() == [0.5, 1]
    assert found.loc["A+ctrl", ["mistaken_for", "mistaken_share", "mistaken_class"]].tolist() == [
        "C+ctrl",
        0.5,
        "similar profile",
    ]
    assert found.loc["D+ctrl", ["mistaken_for", "mistaken_share", "mistaken_class"]].tolist() == ["", 0, ""]


def test_groups_of_conditions_count_each_condition_the_same():
    facts = pd.DataFrame(
        {
            "condition": CONDITIONS,
            "genes": [2, 1, 1, 1, 1],
            "e_distance": [9.0, 1.0, 2.0, 3.0, 8.0],
            "reference_cells": [10, 20, 30, 40, 50],
        }
    )
    assert groups(facts)["strong effect"].tolist() == [True, False, False, False, True]
    assert groups(facts)["few cells"].tolist() == [True, True, True, False, False]
    unknown = groups(facts.assign(e_distance=np.nan))
    assert not (unknown["strong effect"] | unknown["weak effect"]).any()
    labels = np.array(["A+ctrl"] * 3 + ["C+ctrl"], dtype=object)
    scores = answered("A+ctrl", "A+ctrl", "A+ctrl", "D+ctrl")
    found = by_group(by_condition(scores, labels, CONDITIONS, RELATION), facts).set_index("group")
    assert found.loc["single", ["conditions", "exact_hit@1"]].tolist() == [2, 0.5]
    assert set(found.index) == {"single", "weak effect", "few cells"}
