"""How well averages of more and more query cells are answered, condition by condition."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pandas as pd

from reverse_perturbation.conditions import in_space
from reverse_perturbation.retrieval.evaluate import Evaluator, Scores, Setting
from reverse_perturbation.retrieval.metrics import per_query

BOUND = "simulator bound"  # what the rows of analysis/oracle.py are called among those of the models
METRICS = ("exact_hit@1", "mrr")
COLUMNS = ["ranking", "condition", "averaged", *METRICS, "queries"]


def by_size(
    evaluator: Evaluator, sizes: Sequence[int], ranking: str, answer: Callable[[Evaluator, Setting], Scores]
) -> pd.DataFrame:
    """Ask about single query cells and about pseudo-bulks of them, in the label space the models were fitted in.

    Parameters
    ----------
    evaluator
        Its section ``query`` says how pseudo-bulks are drawn; how many cells they have is taken from ``sizes``.
    sizes
        Numbers of cells averaged. A condition with fewer query cells has no row at that size; it stays a candidate.
    ranking
        Name of the way the queries are ranked.
    answer
        Scores the queries of a setting, given the evaluator whose pseudo-bulks are of that size.

    Returns
    -------
    pandas.DataFrame
        One row a number of cells and condition: ``ranking``, ``condition``, ``averaged``, ``exact_hit@1``, ``mrr``,
        ``queries``.
    """
    conditions = set(in_space(evaluator.legacy[evaluator.parts == "query"], evaluator.fitted_space))
    tables = [pd.DataFrame(columns=COLUMNS)]
    for size in sizes:
        sized = replace(evaluator, query=evaluator.query.model_copy(update={"cells": size}))
        setting = Setting(ranking, "cell" if size == 1 else "pseudobulk", evaluator.fitted_space)
        if len(sized.skipped(setting)) == len(conditions):
            continue
        found = answer(sized, setting)
        values = {name: per_query(name, found.scores, found.labels, found.conditions) for name in METRICS}
        own = pd.DataFrame({"condition": found.labels.astype(str), **values}).groupby("condition")
        rows = own.mean().assign(ranking=ranking, averaged=size, queries=own.size()).reset_index()
        tables.append(rows[COLUMNS])
    return pd.concat(tables[1:] or tables, ignore_index=True)
