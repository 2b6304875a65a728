"""How retrieval improves with the number of query cells averaged, condition by condition."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pandas as pd

from reverse_perturbation.conditions import in_space
from reverse_perturbation.metrics.registry import per_query, shown_in
from reverse_perturbation.retrieval.evaluate import Evaluator, QuerySetting, Scores

BOUND = "simulator bound"  # name of the rows of analysis/oracle.py
METRICS = shown_in("brief")
COLUMNS = ["ranking", "condition", "cells_per_query", *METRICS, "queries"]


def by_size(
    evaluator: Evaluator, sizes: Sequence[int], ranking: str, score: Callable[[Evaluator, QuerySetting], Scores]
) -> pd.DataFrame:
    """Score single query cells and pseudo-bulks of them, in the label space the models were fitted in.

    Parameters
    ----------
    evaluator
        Its section ``query`` says how pseudo-bulks are drawn; ``sizes`` says of how many cells.
    sizes
        Numbers of cells averaged. A condition with fewer query cells has no row at that size; it stays a candidate.
    ranking
        Classifier or kind of library.
    score
        Scores the queries of a setting, given the evaluator whose pseudo-bulks are of that size.

    Returns
    -------
    pandas.DataFrame
        One row a number of cells and condition: ``ranking``, ``condition``, ``cells_per_query``, ``exact_hit@1``,
        ``mrr``, ``queries``.
    """
    conditions = set(in_space(evaluator.legacy[evaluator.parts == "query"], evaluator.fitted_space))
    tables = [pd.DataFrame(columns=COLUMNS)]
    for size in sizes:
        sized = replace(evaluator, query=evaluator.query.model_copy(update={"cells_per_query": size}))
        setting = QuerySetting(ranking, "cell" if size == 1 else "pseudobulk", evaluator.fitted_space)
        if len(sized.skipped(setting)) == len(conditions):
            continue
        scores = score(sized, setting)
        values = {name: per_query(name, scores.scores, scores.labels, scores.conditions) for name in METRICS}
        by_condition = pd.DataFrame({"condition": scores.labels.astype(str), **values}).groupby("condition")
        rows = (
            by_condition.mean().assign(ranking=ranking, cells_per_query=size, queries=by_condition.size()).reset_index()
        )
        tables.append(rows[COLUMNS])
    return pd.concat(tables[1:] or tables, ignore_index=True)
