"""One evaluator for all models: probabilities, pseudo-bulks, label spaces, and what a leak would look like."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from reverse_perturbation.comparison.grid import LIBRARY as LIBRARY_KEY
from reverse_perturbation.comparison.grid import grid, table
from reverse_perturbation.conditions import canonical
from reverse_perturbation.data.screen.mask import apply_mask
from reverse_perturbation.data.screen.normalize import log1p_cp10k
from reverse_perturbation.data.split import split_cells
from reverse_perturbation.errors import InputError
from reverse_perturbation.metrics import registry
from reverse_perturbation.metrics.confidence import margin
from reverse_perturbation.metrics.ranks.rank import rank_of_truth
from reverse_perturbation.models.linear.logreg import LogisticRegression
from reverse_perturbation.prepare.simulate import MODEL, simulate
from reverse_perturbation.retrieval.evaluate import Evaluator, QuerySetting, Scores, average
from reverse_perturbation.retrieval.predictions import Predictions
from reverse_perturbation.sections import Library, LibraryQuery, Query, Simulated

LIBRARY = Library(
    kind="bootstrap",
    embedding="plain",
    similarity="cosine",
    prototypes=5,
    cells_per_prototype=10,
    neighbours=5,
    seed=42,
)
CELL = QuerySetting("classifier", "cell", "canonical")


def evaluator(legacy, parts, space="canonical", cells_per_query=2, draws=1) -> Evaluator:
    return Evaluator(
        cell_ids=np.array([f"c{i}" for i in range(len(legacy))], dtype=object),
        legacy=np.array(legacy, dtype=object),
        parts=np.array(parts, dtype=object),
        fitted_space=space,
        library=LIBRARY,
        query=Query(kind="cell", cells_per_query=cells_per_query, draws=draws, seed=0),
    )


def predictions(of: Evaluator, conditions=None, log_proba=None, embedding=None) -> Predictions:
    return Predictions(
        of.cell_ids,
        None if log_proba is None else np.asarray(log_proba, dtype=np.float32),
        None if conditions is None else np.array(conditions, dtype=object),
        None if embedding is None else np.asarray(embedding, dtype=np.float32),
    )


def answers(log_proba, conditions, space="canonical") -> tuple[Evaluator, Predictions]:
    """All rows as queries labelled with the first condition, behind one reference cell of each condition."""
    n, queries = len(conditions), len(log_proba)
    judge = evaluator([*conditions, *[conditions[0]] * queries], ["reference"] * n + ["query"] * queries, space)
    return judge, predictions(judge, conditions, np.concatenate([np.full((n, n), -np.log(n)), log_proba]))


# ---- what a classifier's scores are


def test_scores_are_probabilities_and_confidence_their_margin():
    """By log-probabilities the second query would be the more confident one."""
    proba = np.array([[0.6, 0.3, 0.05, 0.05], [0.45, 0.19, 0.18, 0.18]])
    judge, given_ = answers(np.log(proba), ["A+ctrl", "B+ctrl", "C+ctrl", "D+ctrl"])
    found = judge.scores(given_, CELL)
    assert found.scores == pytest.approx(proba)
    assert margin(found.scores) == pytest.approx([0.3, 0.26])
    assert found.queries.tolist() == ["c4", "c5"]


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(-300, 300, width=32), min_size=4, max_size=4), min_size=1, max_size=5))
def test_ranks_are_those_of_the_log_probabilities(logits):
    log_proba = log_softmax(np.array(logits), axis=1).astype(np.float32)
    judge, given_ = answers(log_proba, ["A+ctrl", "B+ctrl", "C+ctrl", "D+ctrl"])
    found = judge.scores(given_, CELL).scores
    assert found.sum(axis=1) == pytest.approx(1)
    for column in range(4):
        truth = np.full(len(logits), column)
        assert (rank_of_truth(found, truth) == rank_of_truth(log_proba, truth)).all()


def test_tiny_probabilities_do_not_tie_in_memory_or_on_disk(tmp_path):
    """In float32 the last three would all be 0, and the truth share the ranks 2 to 4."""
    judge, given_ = answers([[-200, 0, -300, -700]], ["A+ctrl", "B+ctrl", "C+ctrl", "D+ctrl"])
    found = judge.scores(given_, CELL)
    found.save(tmp_path / "s.npz")
    for scores in (found, Scores.load(tmp_path / "s.npz")):
        assert registry.compute(scores.scores, scores.labels, scores.conditions)["mrr"] == pytest.approx(1 / 2)


def test_scores_survive_the_disk_and_a_broken_file_is_named(tmp_path):
    judge, given_ = answers([[-1, -0.5]], ["A+ctrl", "B+ctrl"])
    found = judge.scores(given_, CELL)
    found.save(tmp_path / "s.npz")
    again = Scores.load(tmp_path / "s.npz")
    for name in ("queries", "labels", "conditions", "scores"):
        assert getattr(again, name).tolist() == getattr(found, name).tolist()
    (tmp_path / "s.npz").write_bytes(b"no zip")
    with pytest.raises(InputError, match=r"s\.npz: not the scores"):
        Scores.load(tmp_path / "s.npz")
    with pytest.raises(InputError, match=r"t\.npz: no such file; run `dvc repro`"):
        Scores.load(tmp_path / "t.npz")


# ---- pseudo-bulks


def test_a_pseudobulk_is_the_normalised_geometric_mean():
    judge, given_ = answers(np.log([[0.9, 0.1], [0.4, 0.6]]), ["A+ctrl", "B+ctrl"])
    found = judge.scores(given_, QuerySetting("classifier", "pseudobulk", "canonical"))
    a, b = (0.9 * 0.4) ** 0.5, (0.1 * 0.6) ** 0.5
    assert found.scores == pytest.approx(np.array([[a, b]]) / (a + b))
    assert found.labels.tolist() == ["A+ctrl"]


def test_a_pseudobulk_is_averaged_in_the_space_of_the_fit():
    """Adding the twins of each cell before averaging would give 0.6 for A."""
    proba = np.log([[0.5, 0.1, 0.4], [0.1, 0.5, 0.4]])
    judge, given_ = answers(proba, ["A+ctrl", "ctrl+A", "B+ctrl"], space="legacy")
    found = judge.scores(given_, QuerySetting("classifier", "pseudobulk", "canonical"))
    twin = 0.05**0.5
    assert found.conditions.tolist() == ["A+ctrl", "B+ctrl"]
    assert found.scores == pytest.approx(np.array([[2 * twin, 0.4]]) / (2 * twin + 0.4))


def test_a_pseudobulk_averages_embeddings():
    judge = evaluator(["A+ctrl", "B+ctrl", "A+ctrl", "A+ctrl"], ["reference"] * 2 + ["query"] * 2)
    given_ = predictions(judge, embedding=[[1, 0], [0, 1], [3, 0], [0, 1]])
    found = judge.scores(given_, QuerySetting("mean", "pseudobulk", "canonical"))
    assert found.scores == pytest.approx(np.array([[1.5, 0.5]]) / 2.5**0.5)


def test_conditions_with_too_few_cells_are_told():
    legacy = ["A+ctrl", "ctrl+A", "B+ctrl", "C+ctrl", "A+ctrl", "ctrl+A", "B+ctrl", "B+ctrl", "C+ctrl"]
    judge = evaluator(legacy, ["reference"] * 4 + ["query"] * 5)
    # Of the legacy labels only B has two query cells; canonically A has two as well.
    told = {space: judge.skipped(QuerySetting("mean", "pseudobulk", space)) for space in ("legacy", "canonical")}
    assert told == {"legacy": {"A+ctrl": 1, "C+ctrl": 1, "ctrl+A": 1}, "canonical": {"C+ctrl": 1}}
    assert judge.skipped(QuerySetting("mean", "cell", "legacy")) == {}
    given_ = predictions(judge, embedding=np.random.default_rng(0).random((9, 3)))
    found = judge.scores(given_, QuerySetting("mean", "pseudobulk", "canonical"))
    assert (found.labels.tolist(), found.scores.shape) == (["A+ctrl", "B+ctrl"], (2, 3))


def test_no_condition_with_cells_enough_is_an_error():
    judge = evaluator(["A+ctrl", "B+ctrl"] * 2, ["reference"] * 2 + ["query"] * 2)
    with pytest.raises(InputError, match=r"query\.cells_per_query: no condition has 2"):
        judge.scores(predictions(judge, embedding=np.eye(4)), QuerySetting("mean", "pseudobulk", "canonical"))


def test_an_average_by_hand():
    values = np.array([[1.0, 0], [3, 4], [5, 5]], dtype=np.float32)
    assert average(values, np.array([[0, 1], [2, 2]])).tolist() == [[2, 2], [5, 5]]


# ---- libraries


def test_the_headline_s_library_is_as_the_parameters_say():
    """The query lies in the direction of B from the origin, near A, and in the direction of C from the controls."""
    judge = evaluator(["A+ctrl", "B+ctrl", "C+ctrl", "C+ctrl"], ["reference"] * 3 + ["query"])
    embedding = np.array([[1.5, 1.5], [20, 10], [10, -3], [2, 1]], dtype=np.float32)
    given_ = Predictions(judge.cell_ids, None, None, embedding, None, np.array([0, 2], dtype=np.float32))
    setting = QuerySetting("mean", "cell", "canonical")
    for changes, answer in (
        ({}, "B+ctrl"),
        ({"similarity": "euclidean"}, "A+ctrl"),
        ({"embedding": "centred"}, "C+ctrl"),
        ({"embedding": "centred", "similarity": "euclidean"}, "A+ctrl"),
    ):
        one = dataclasses.replace(judge, library=LIBRARY.model_copy(update=changes))
        found = one.scores(given_, setting)
        assert found.conditions[found.scores.argmax()] == answer
    headline = dataclasses.replace(judge, library=LIBRARY.model_copy(update={"kind": "raw_cell_vote"}))
    assert headline.headline(given_, "library").ranking == "raw_cell_vote"


# ---- label spaces


@pytest.mark.parametrize("space", ["legacy", "canonical"])
def test_the_results_of_one_classifier_are_paired_across_label_spaces(space):
    rng = np.random.default_rng(1)
    labels = ["A+ctrl", "ctrl+A", "B+ctrl", "A+B"]
    legacy = [*labels, *["A+ctrl"] * 2, *rng.choice(labels, 30)]
    judge = evaluator(legacy, ["reference"] * 6 + ["query"] * 30, space)
    conditions = sorted(labels if space == "legacy" else {canonical(label) for label in labels})
    given_ = predictions(judge, conditions, log_softmax(rng.normal(size=(36, len(conditions))), axis=1))
    a, b = (judge.scores(given_, QuerySetting("classifier", "cell", labels)) for labels in ("legacy", "canonical"))
    assert a.queries.tolist() == b.queries.tolist()
    assert [canonical(label) for label in a.labels] == b.labels.tolist()
    for i, name in enumerate(b.conditions):
        twins = [canonical(condition) == name for condition in a.conditions]
        assert a.scores[:, twins].sum(axis=1) == pytest.approx(b.scores[:, i], rel=1e-5)
    if space == "canonical":
        # Three of the four library cells of A bear the label A+ctrl.
        columns = [a.conditions.tolist().index(name) for name in ("A+ctrl", "ctrl+A")]
        assert a.scores[:, columns[0]] == pytest.approx(3 * a.scores[:, columns[1]], rel=1e-5)


def test_the_headline_is_what_was_asked_for_where_the_model_can():
    judge = evaluator(["A+ctrl", "B+ctrl"], ["reference", "query"])
    embedding, both = np.eye(2), predictions(judge, ["A+ctrl", "B+ctrl"], np.log(np.full((2, 2), 0.5)), np.eye(2))
    only = predictions(judge, embedding=embedding)
    assert judge.headline(both, "classifier").ranking == "classifier"
    assert judge.headline(both, "library").ranking == "bootstrap"
    assert judge.headline(only, "classifier").ranking == "bootstrap"


# ---- leaks


def noise(n_conditions=5, per_part=40):
    """Embeddings that know nothing of the labels; reference, validation and query cells of each condition."""
    legacy = np.repeat([f"G{i}+ctrl" for i in range(n_conditions)], 3 * per_part)
    parts = np.tile(np.repeat(["reference", "validation", "query"], per_part), n_conditions)
    judge = evaluator(legacy, parts, cells_per_query=10)
    return judge, np.random.default_rng(0).normal(size=(len(legacy), 8))


def hit(judge, embedding, ranking="raw_cell", **parts) -> float:
    found = judge.scores(predictions(judge, embedding=embedding), QuerySetting(ranking, "cell", "canonical"), **parts)
    return registry.compute(found.scores, found.labels, found.conditions)["exact_hit@1"]


def test_queries_that_stand_in_the_library_show_as_a_perfect_raw_cell_score():
    judge, embedding = noise()
    leaked = embedding.copy()
    leaked[judge.parts == "query"] = embedding[judge.parts == "reference"]
    assert hit(judge, embedding) < 0.35
    assert hit(judge, leaked) == 1
    assert hit(judge, leaked) > 2 * hit(judge, leaked, ranking="bootstrap")


def test_the_library_holds_the_parts_asked_for_and_no_other():
    """Found again with certainty is a cell that stands in the library itself."""
    judge, embedding = noise()
    assert hit(judge, embedding, library_parts=("reference",), query_part="validation") < 0.35
    assert hit(judge, embedding, query_part="validation") == 1
    assert hit(judge, embedding, query_part="query") < 0.35


def test_a_cell_in_two_parts_is_refused():
    judge = evaluator(["A+ctrl", "B+ctrl", "A+ctrl"], ["reference", "reference", "query"])
    with pytest.raises(InputError, match="cell 'c0' occurs more than once"):
        dataclasses.replace(judge, cell_ids=np.array(["c0", "c1", "c0"], dtype=object))


def test_predictions_of_other_cells_are_refused():
    judge = evaluator(["A+ctrl", "B+ctrl"], ["reference", "query"])
    swapped = Predictions(judge.cell_ids[::-1], None, None, np.eye(2, dtype=np.float32))
    with pytest.raises(InputError, match="not of the cells of this split"):
        judge.scores(swapped, QuerySetting("mean", "cell", "canonical"))


def test_a_query_of_a_condition_that_is_not_in_the_library_is_an_error():
    judge = evaluator(["A+ctrl", "B+ctrl", "C+ctrl"], ["reference", "reference", "query"])
    found = judge.scores(predictions(judge, embedding=np.eye(3)), QuerySetting("mean", "cell", "canonical"))
    with pytest.raises(InputError, match=r"C\+ctrl"):
        registry.compute(found.scores, found.labels, found.conditions)


# ---- shuffled labels


@pytest.fixture(scope="module")
def screen():
    table = pd.DataFrame({"condition": ["A+ctrl", "B+ctrl", "A+B", "D+ctrl", "ctrl"], "cells": [300] * 4 + [100]})
    size = Simulated(n_conditions=4, n_cells=1300, n_genes=80, seed=0)
    clear = dataclasses.replace(MODEL, effect=1.5, weakness=0.0)
    return simulate(table, size, [f"GENE{i}" for i in range(400)], {}, model=clear)


def macro_hits(screen, labels) -> pd.Series:
    """macro_hit@1 of logistic regression and of libraries of masked cells, for single cells."""
    cells = screen.copy()
    cells.obs["condition"] = labels
    frame = split_cells(cells.obs, seed=0, label_space="canonical")
    masked = apply_mask(cells, "all_targets")
    rows = cells.obs_names.get_indexer(frame["cell"])
    values = log1p_cp10k(masked.counts, masked.totals)[rows]
    legacy, parts = cells.obs["condition"].to_numpy(dtype=object)[rows], frame["part"].to_numpy(dtype=object)
    judge = dataclasses.replace(evaluator(legacy, parts), cell_ids=frame["cell"].to_numpy(dtype=object))
    learn = parts != "query"
    model = LogisticRegression("none", 0.1, 300).fit(values[learn], frame["condition"].to_numpy(dtype=object)[learn])
    answers = grid(judge, predictions(judge, model.conditions, model.log_proba(values), values.toarray()), [])
    rows = table([list(answers)], LibraryQuery(cells_per_query=[1], validation_cells_per_query=1, draws=10, seed=0))
    return rows[rows["labels"] == "canonical"].set_index(LIBRARY_KEY)["macro_hit@1"]


def test_shuffled_labels_are_at_chance_and_true_ones_are_not(screen):
    """Whatever a model learns of frequencies, answers that ignore the cell have a macro_hit@1 of 1 / conditions."""
    labels = screen.obs["condition"].astype(str).to_numpy(dtype=object)
    perturbed = np.flatnonzero(labels != "ctrl")
    shuffled = labels.copy()
    shuffled[perturbed] = np.random.default_rng(3).permutation(labels[perturbed])
    # Four conditions of 60 queries; a share p answered alike has the variance p (1 - p) / 60 in each.
    bound = 0.25 + 4 * (0.25 / 60 / 4) ** 0.5
    found = macro_hits(screen, shuffled)
    assert (found < bound).all(), found
    # Whitened, the 80 genes' noise counts as much as the few directions the conditions lie in.
    found = macro_hits(screen, labels).drop("whitened", level="embedding")
    assert len(found) == 1 + 4 * 2
    assert (found > bound).all(), found
