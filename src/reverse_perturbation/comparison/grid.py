"""Every library, similarity, embedding and query in one pass over a model's predictions, and the choice among them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from reverse_perturbation.comparison.significance import paired_bootstrap
from reverse_perturbation.conditions import LABEL_SPACES, LabelSpace, in_space
from reverse_perturbation.metrics.ranks.ranking import Ranking
from reverse_perturbation.metrics.registry import REGISTRY, shown_in
from reverse_perturbation.retrieval.evaluate import Evaluator, QuerySetting, average
from reverse_perturbation.retrieval.library import LibraryRanker
from reverse_perturbation.retrieval.predictions import Predictions
from reverse_perturbation.retrieval.transform import Transform
from reverse_perturbation.sections import Embedding, LibraryKind, LibraryQuery, Similarity

EMBEDDINGS: tuple[Embedding, ...] = ("plain", "centred", "whitened")
SIMILARITIES: tuple[Similarity, ...] = ("cosine", "euclidean")
# One search serves both ways of scoring raw cells.
SEARCHED: dict[LibraryKind, tuple[LibraryKind, ...]] = {
    "mean": ("mean",),
    "bootstrap": ("bootstrap",),
    "raw_cell_vote": ("raw_cell", "raw_cell_vote"),
}
METRICS = shown_in("grid")
INTERVALS = shown_in("brief")
LIBRARY = ["ranking", "embedding", "similarity"]


@dataclass(frozen=True)
class Queries:
    """The queries of one size in one label space.

    Attributes
    ----------
    labels
        The label space.
    cells_per_query
        How many cells are averaged, 1 for single cells.
    groups
        int64 [n_queries, cells]: their rows; of none where every condition is skipped.
    truth
        Object array [n_queries]: the true condition.
    skipped
        Number of conditions with fewer cells, which have no query.
    """

    labels: LabelSpace
    cells_per_query: int
    groups: np.ndarray
    truth: np.ndarray
    skipped: int


@dataclass(frozen=True)
class Answers:
    """Metrics of one setting on the queries of one size; ``key`` holds the first columns of its row.

    Attributes
    ----------
    key
        ``labels``, ``cells_per_query``, ``ranking``, ``embedding``, ``similarity``.
    queries
        The queries.
    conditions
        Number of candidates.
    values
        float64 [n_queries, len(METRICS)].
    """

    key: dict[str, str | int]
    queries: Queries
    conditions: int
    values: np.ndarray


def grid(
    evaluator: Evaluator,
    predictions: Predictions,
    sizes: Sequence[int],
    *,
    library_parts: tuple[str, ...] = ("reference", "validation"),
    query_part: str = "query",
    spaces: Sequence[LabelSpace] = LABEL_SPACES,
) -> Iterator[Answers]:
    """Rank the queries of a part, single cells and pseudo-bulks of some sizes, in every way the predictions allow.

    Each library is built once and searched with all queries together. Euclidean distances do not depend on the origin,
    so ``centred`` differs from ``plain`` by cosine alone and is there by cosine alone; it needs control cells.

    Raises
    ------
    InputError
        If the predictions are not of these cells, or a query's condition is not in the library.
    """
    in_library = evaluator.check(predictions, library_parts)
    for space in spaces:
        query_sets = [_queries(evaluator, space, size, query_part) for size in (1, *sizes)]
        if predictions.log_proba is not None:
            for queries in query_sets:
                conditions, scores = evaluator.classify(predictions, queries.groups, space, in_library)
                yield _answers(queries, ("classifier", "-", "-"), conditions, scores)
        if predictions.embedding is None:
            continue
        ends = np.cumsum([len(queries.groups) for queries in query_sets])[:-1]
        labels = in_space(evaluator.legacy, space)[in_library]
        for embedding in EMBEDDINGS:
            if embedding == "centred" and predictions.control_mean is None:
                continue
            transform = Transform.fit(embedding, predictions.embedding[in_library], predictions.control_mean)
            cells = transform(predictions.embedding)
            together = np.concatenate([average(cells, queries.groups).astype(np.float32) for queries in query_sets])
            for similarity in SIMILARITIES[: 1 if embedding == "centred" else None]:
                for kind, scored in SEARCHED.items():
                    config = evaluator.library.model_copy(update={"kind": kind, "similarity": similarity})
                    ranker = LibraryRanker(config).fit(cells[in_library], labels)
                    for name, similarities in zip(scored, ranker.search(together), strict=False):
                        assert similarities is not None
                        for queries, of_queries in zip(query_sets, np.split(similarities, ends), strict=True):
                            yield _answers(queries, (name, embedding, similarity), ranker.conditions, of_queries)


def table(runs: Sequence[Sequence[Answers]], config: LibraryQuery) -> pd.DataFrame:
    """Return one row a setting, each metric the mean over the training seeds.

    The 95 % intervals are bootstraps of the values averaged over seeds. Single cells are resampled within their
    condition. Pseudo-bulks of one condition share cells and are not independent: whole conditions are resampled.

    Parameters
    ----------
    runs
        What :func:`grid` gives for each training seed, on the same queries.
    config
        Section ``library_query``.

    Returns
    -------
    pandas.DataFrame
        One row a setting: its key, ``queries``, ``conditions``, ``skipped_conditions``, the metrics, and ``_low`` and
        ``_high`` of :data:`INTERVALS`; metrics are empty where every condition is skipped.
    """
    rows = []
    for of_seeds in zip(*runs, strict=True):
        first = of_seeds[0]
        values = np.mean([answers.values for answers in of_seeds], axis=0)
        row: dict[str, str | int | float] = first.key | {
            "queries": len(values),
            "conditions": first.conditions,
            "skipped_conditions": first.queries.skipped,
        }
        if len(values):
            row |= dict(zip(METRICS, values.mean(axis=0).tolist(), strict=True))
            for name in INTERVALS:
                low, high = interval(values[:, METRICS.index(name)], first.queries, config)
                row |= {f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def interval(values: np.ndarray, queries: Queries, config: LibraryQuery) -> tuple[float, float]:
    """Return the 95 % interval of the mean of float [n_queries]; NaN for pseudo-bulks of one condition alone."""
    strata = queries.truth
    if queries.cells_per_query > 1:
        values = pd.Series(values).groupby(queries.truth.astype(str)).mean().to_numpy()
        strata = np.zeros(len(values))
        if len(values) < 2:
            return np.nan, np.nan
    gap = paired_bootstrap(values, np.zeros(len(values)), strata, draws=config.draws, seed=config.seed)
    return gap.low, gap.high


def choose(rows: pd.DataFrame) -> pd.DataFrame:
    """Choose each model's library on validation, for single cells and for pseudo-bulks.

    Parameters
    ----------
    rows
        :func:`table` of every model with the columns ``model`` and ``part``, ``validation`` or ``query``. On validation
        there is one size of pseudo-bulk and one label space.

    Returns
    -------
    pandas.DataFrame
        The validation rows with the highest mrr among libraries, one a model and ``cells_per_query``, the first of
        equals; none for a model without an embedding, nor for pseudo-bulks too large for the validation cells.
    """
    candidates = rows[(rows["part"] == "validation") & (rows["ranking"] != "classifier")].dropna(subset=["mrr"])
    return rows.loc[candidates.groupby(["model", "cells_per_query"], sort=False)["mrr"].idxmax()]


def _queries(evaluator: Evaluator, space: LabelSpace, size: int, part: str) -> Queries:
    sized = replace(evaluator, query=evaluator.query.model_copy(update={"cells_per_query": size}))
    setting = QuerySetting("", "cell" if size == 1 else "pseudobulk", space)
    skipped = sized.skipped(setting, part)
    if len(skipped) == len(set(in_space(evaluator.legacy[evaluator.parts == part], space))):
        return Queries(space, size, np.empty((0, size), dtype=np.int64), np.empty(0, dtype=object), len(skipped))
    groups, truth, _ = sized.queries(setting, part)
    return Queries(space, size, groups, truth, len(skipped))


def _answers(queries: Queries, setting: tuple[str, str, str], conditions: np.ndarray, scores: np.ndarray) -> Answers:
    values = np.empty((len(scores), len(METRICS)))
    if len(scores):
        ranking = Ranking.of(scores, queries.truth, conditions)
        values = np.column_stack([np.asarray(REGISTRY[name].measure(ranking)) for name in METRICS])
    key: dict[str, str | int] = {"labels": queries.labels, "cells_per_query": queries.cells_per_query}
    key |= dict(zip(LIBRARY, setting, strict=True))
    return Answers(key, queries, len(conditions), values)
