"""The grid of libraries and queries, its intervals, and the choice on validation."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from reverse_perturbation.comparison.grid import LIBRARY, METRICS, Queries, choose, grid, interval, table
from reverse_perturbation.config import Params
from reverse_perturbation.errors import InputError
from reverse_perturbation.metrics import registry
from reverse_perturbation.retrieval.evaluate import Evaluator, QuerySetting
from reverse_perturbation.retrieval.predictions import Predictions
from tests.end_to_end.pipeline import params

CONFIG = Params.model_validate(
    params(library={"prototypes": 3, "cells_per_prototype": 4, "neighbours": 6}, query={"draws": 2})
    | {"library_query": {"cells_per_query": [2, 5], "validation_cells_per_query": 2, "draws": 200, "seed": 0}}
)
CONDITIONS = ["A+ctrl", "ctrl+A", "B+ctrl", "A+B"]
KEY = ["labels", "cells_per_query", *LIBRARY]
SETTINGS = 4 * 5  # libraries; plain and whitened by both similarities, centred by cosine


def screen(strength: float = 1.0, seed: int = 0) -> tuple[Evaluator, Predictions]:
    """Twelve cells a condition, 6 reference, 2 validation, 4 query; B has two more queries."""
    rng = np.random.default_rng(seed)
    legacy = np.array([*np.repeat(CONDITIONS, 12), "B+ctrl", "B+ctrl"], dtype=object)
    parts = np.tile(np.repeat(["reference", "validation", "query"], [6, 2, 4]), 4)
    parts = np.array([*parts, "query", "query"], dtype=object)
    cell_ids = np.array([f"c{i}" for i in range(len(legacy))], dtype=object)
    evaluator = Evaluator(cell_ids, legacy, parts, "legacy", CONFIG.library, CONFIG.query)
    centre = rng.normal(size=(4, 5))[[CONDITIONS.index(label) for label in legacy]]
    embedding = (strength * centre + rng.normal(size=(len(cell_ids), 5)) + 2).astype(np.float32)
    log_proba = np.log(rng.dirichlet(np.ones(4), len(cell_ids))).astype(np.float32)
    conditions = np.array(CONDITIONS, dtype=object)
    return evaluator, Predictions(cell_ids, log_proba, conditions, embedding, None, np.full(5, 2, dtype=np.float32))


def rows_of(evaluator, predictions, **options) -> pd.DataFrame:
    return table(
        [list(grid(evaluator, predictions, CONFIG.library_query.cells_per_query, **options))], CONFIG.library_query
    )


def test_every_setting_is_there_once():
    rows = rows_of(*screen())
    assert len(rows) == 2 * 3 * (SETTINGS + 1)
    assert not rows.duplicated(KEY).any()
    assert not ((rows["embedding"] == "centred") & (rows["similarity"] == "euclidean")).any()


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return rows_of(*screen()).set_index(KEY)


@pytest.mark.parametrize("ranking", ["classifier", "mean", "bootstrap", "raw_cell", "raw_cell_vote"])
@pytest.mark.parametrize("cells_per_query", [1, 2, 5])
def test_a_row_is_what_the_evaluator_finds_for_the_setting(rows, ranking, cells_per_query):
    evaluator, predictions = screen()
    query = CONFIG.query.model_copy(update={"cells_per_query": cells_per_query})
    for labels in ("legacy", "canonical"):
        for embedding, similarity in (("plain", "cosine"), ("centred", "cosine"), ("whitened", "euclidean")):
            library = CONFIG.library.model_copy(update={"embedding": embedding, "similarity": similarity})
            one = dataclasses.replace(evaluator, query=query, library=library)
            setting = QuerySetting(ranking, "cell" if cells_per_query == 1 else "pseudobulk", labels)
            found = one.scores(predictions, setting)
            expected = registry.compute(found.scores, found.labels, found.conditions)
            which = ("-", "-") if ranking == "classifier" else (embedding, similarity)
            row = rows.loc[(labels, cells_per_query, ranking, *which)]
            assert row[list(METRICS)].tolist() == pytest.approx([expected[name] for name in METRICS])
            assert (row["queries"], row["conditions"]) == found.scores.shape
            assert row["skipped_conditions"] == len(one.skipped(setting))


def test_conditions_with_too_few_cells_are_counted_and_their_draws_not_shrunk():
    evaluator, predictions = screen()
    sizes = (
        rows_of(evaluator, predictions)
        .drop_duplicates(["labels", "cells_per_query"])
        .set_index(["labels", "cells_per_query"])
    )
    # Of six cells only B has five in the legacy space; canonically A's twins have eight together.
    assert sizes["skipped_conditions"].to_dict() == {
        ("legacy", 1): 0, ("legacy", 2): 0, ("legacy", 5): 3,
        ("canonical", 1): 0, ("canonical", 2): 0, ("canonical", 5): 1,
    }  # fmt: skip
    assert sizes["queries"].to_dict() == {
        ("legacy", 1): 18, ("legacy", 2): 8, ("legacy", 5): 2,
        ("canonical", 1): 18, ("canonical", 2): 6, ("canonical", 5): 4,
    }  # fmt: skip


def test_a_size_that_no_condition_has_is_an_empty_row():
    evaluator, predictions = screen()
    config = CONFIG.library_query.model_copy(update={"cells_per_query": [7]})
    rows = table([list(grid(evaluator, predictions, [7], spaces=["legacy"]))], config)
    empty = rows[rows["cells_per_query"] == 7]
    assert len(empty) == SETTINGS + 1
    assert (empty["queries"] == 0).all()
    assert (empty["skipped_conditions"] == 4).all()
    assert empty[[*METRICS, "mrr_low"]].isna().all(axis=None)


def test_what_a_model_does_not_have_is_left_out():
    evaluator, predictions = screen()
    only = dataclasses.replace(predictions, embedding=None, control_mean=None)
    assert set(rows_of(evaluator, only)["ranking"]) == {"classifier"}
    without = rows_of(evaluator, dataclasses.replace(predictions, log_proba=None, conditions=None, control_mean=None))
    assert "classifier" not in set(without["ranking"])
    assert set(without["embedding"]) == {"plain", "whitened"}


def test_nothing_is_fitted_on_query_cells():
    """Other queries leave the answers to the first four as they are, whitened ones too."""
    evaluator, predictions = screen()
    first = np.flatnonzero(evaluator.parts == "query")[:4]
    other = predictions.embedding.copy()
    rest = (evaluator.parts == "query") & ~np.isin(np.arange(len(other)), first)
    other[rest] = 100 * np.random.default_rng(9).normal(size=(rest.sum(), 5))
    changed = dataclasses.replace(predictions, embedding=other)
    for a, b in zip(grid(evaluator, predictions, []), grid(evaluator, changed, []), strict=True):
        assert a.key == b.key
        column = METRICS.index("mrr")
        assert (a.values[:4, column] == b.values[:4, column]).all()


def test_validation_is_searched_in_a_library_of_reference_cells():
    """Cells that stood in the library would be found again with certainty."""
    evaluator, predictions = screen(strength=0.0)
    options = {"query_part": "validation", "spaces": ["legacy"]}
    rows = rows_of(evaluator, predictions, library_parts=("reference",), **options).set_index(KEY)["exact_hit@1"]
    leaked = rows_of(evaluator, predictions, **options).set_index(KEY)["exact_hit@1"]
    setting = ("legacy", 1, "raw_cell", "plain", "euclidean")
    assert leaked[setting] == 1
    assert rows[setting] < 0.8


def test_a_query_of_a_condition_that_is_not_in_the_library_is_an_error():
    evaluator, predictions = screen()
    legacy = evaluator.legacy.copy()
    legacy[np.flatnonzero(evaluator.parts == "query")[0]] = "Z+ctrl"
    with pytest.raises(InputError, match=r"Z\+ctrl"):
        rows_of(
            dataclasses.replace(evaluator, legacy=legacy),
            dataclasses.replace(predictions, log_proba=None, conditions=None),
        )


def test_rows_are_means_over_training_seeds():
    (evaluator, one), (_, other) = screen(seed=0), screen(seed=1)
    runs = [list(grid(evaluator, predictions, [2])) for predictions in (one, other)]
    both, *single = (table(each, CONFIG.library_query) for each in (runs, runs[:1], runs[1:]))
    assert both["mrr"].to_numpy() == pytest.approx((single[0]["mrr"] + single[1]["mrr"]) / 2)
    assert not (single[0]["mrr"] == single[1]["mrr"]).all()


# ---- intervals


def queries(truth, cells_per_query) -> Queries:
    return Queries(
        "legacy",
        cells_per_query,
        np.zeros((len(truth), cells_per_query), dtype=np.int64),
        np.array(truth, dtype=object),
        0,
    )


def test_the_interval_of_single_cells_is_that_of_a_mean():
    values = np.random.default_rng(0).random(400)
    low, high = interval(values, queries(["A+ctrl"] * 400, 1), CONFIG.library_query)
    assert (low, high) == pytest.approx(values.mean() + np.array([-1.96, 1.96]) * values.std() / 20, abs=4e-3)


def test_pseudobulks_are_drawn_again_by_whole_conditions():
    """Within its condition each draw is like the other: no draw of draws would show what conditions differ by."""
    truth, values = np.repeat(["A+ctrl", "B+ctrl", "A+B", "C+ctrl"], 5), np.repeat([0.0, 0.0, 1.0, 1.0], 5)
    assert interval(values, queries(truth, 1), CONFIG.library_query) == (0.5, 0.5)
    low, high = interval(values, queries(truth, 10), CONFIG.library_query)
    assert low <= 0.25
    assert high >= 0.75


def test_one_condition_has_no_interval():
    assert np.isnan(interval(np.ones(5), queries(["A+ctrl"] * 5, 10), CONFIG.library_query)).all()


# ---- choice


def row(model, part, cells_per_query, ranking, mrr) -> dict:
    return {"model": model, "part": part, "cells_per_query": cells_per_query, "ranking": ranking, "mrr": mrr}


def test_the_library_is_chosen_on_validation_by_model_and_use():
    rows = pd.DataFrame(
        [
            row("a", "validation", 1, "classifier", 0.9),
            row("a", "validation", 1, "mean", 0.5),
            row("a", "validation", 1, "bootstrap", 0.5),
            row("a", "validation", 5, "mean", 0.6),
            row("a", "validation", 5, "bootstrap", 0.7),
            row("a", "query", 1, "raw_cell", 0.95),
            row("b", "validation", 1, "classifier", 0.9),
            row("c", "validation", 1, "raw_cell", 0.4),
            row("c", "validation", 5, "raw_cell", np.nan),
        ]
    )
    found = choose(rows)[["model", "cells_per_query", "ranking"]].to_numpy().tolist()
    assert found == [["a", 1, "mean"], ["a", 5, "bootstrap"], ["c", 1, "raw_cell"]]
