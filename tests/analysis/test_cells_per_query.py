"""Accuracy by number of cells, by hand."""

import numpy as np
import pytest

from reverse_perturbation.analysis.cells_per_query import COLUMNS, by_size
from reverse_perturbation.retrieval.evaluate import Scores
from tests.retrieval.test_evaluate import evaluator

# Three query cells of A (one of which has the twin's name), two of B, none of D.
LEGACY = ["A+ctrl", "B+ctrl", "D+ctrl", "A+ctrl", "ctrl+A", "A+ctrl", "B+ctrl", "B+ctrl"]
PARTS = ["reference"] * 3 + ["query"] * 5
NAMES = np.array(["A+ctrl", "B+ctrl", "D+ctrl"], dtype=object)


def always_a(sized, setting):
    """Rank A first and B second, whatever the query."""
    _, labels, names = sized.queries(setting, "query")
    return Scores(names, labels, NAMES, np.tile([3.0, 2.0, 1.0], (len(labels), 1)))


def test_each_condition_counts_by_itself_and_one_with_too_few_cells_is_left_out():
    found = by_size(evaluator(LEGACY, PARTS, draws=4), [1, 2, 3, 4], "by hand", always_a)
    assert set(found["ranking"]) == {"by hand"}
    rows = found.set_index(["cells_per_query", "condition"])
    assert rows.index.tolist() == [(1, "A+ctrl"), (1, "B+ctrl"), (2, "A+ctrl"), (2, "B+ctrl"), (3, "A+ctrl")]
    assert rows["exact_hit@1"].tolist() == [1, 0, 1, 0, 1]
    assert rows["mrr"].tolist() == [1, 0.5, 1, 0.5, 1]
    assert rows["queries"].tolist() == [3, 2, 4, 4, 4], "each cell once, and draws of a pseudo-bulk"


def test_in_the_legacy_space_twins_are_queried_apart():
    found = by_size(evaluator(LEGACY[:5], PARTS[:5], space="legacy"), [2], "by hand", always_a)
    assert found.empty
    assert list(found.columns) == COLUMNS


@pytest.mark.parametrize("draws", [1, 3])
def test_the_queries_are_those_of_the_section_query(draws):
    settings = []

    def remember(sized, setting):
        settings.append((setting.query, sized.query.cells_per_query, sized.queries(setting, "query")[0].shape))
        return always_a(sized, setting)

    by_size(evaluator(LEGACY, PARTS, draws=draws, cells_per_query=5), [1, 2], "by hand", remember)
    assert settings == [("cell", 1, (5, 1)), ("pseudobulk", 2, (2 * draws, 2))]
