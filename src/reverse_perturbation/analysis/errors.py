"""Errors: which conditions are confused, and what makes a condition hard."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from reverse_perturbation.conditions import canonical, genes_of
from reverse_perturbation.metrics.registry import per_query, shown_in
from reverse_perturbation.retrieval.evaluate import Scores

# Relation of a prediction to the truth; the first that holds.
CLASSES = ("right", "twin", "shares a gene", "similar profile", "unrelated")
PER_CONDITION = shown_in("conditions")


def relations(conditions: np.ndarray, similarity: np.ndarray, threshold: float) -> np.ndarray:
    """Return int64 [n_conditions, n_conditions]: relation of column to row, as an index of :data:`CLASSES`.

    Parameters
    ----------
    conditions
        Labels of either space.
    similarity
        float [n_conditions, n_conditions], of the conditions' profiles.
    threshold
        Minimum similarity of profiles that count as similar.
    """
    sets = [genes_of(name) for name in conditions]
    names = np.array([canonical(name) for name in conditions], dtype=object)
    shares = np.array([[bool(a & b) for b in sets] for a in sets])
    holds = [np.eye(len(conditions), dtype=bool), names[:, None] == names[None, :], shares, similarity >= threshold]
    return np.select(holds, [np.int64(place) for place in range(len(holds))], default=np.int64(len(holds)))


def answers(scores: np.ndarray) -> np.ndarray:
    """Return float64 [n, n_conditions]: 1 for the first-ranked condition, shared evenly among ties."""
    best = scores == scores.max(axis=1, keepdims=True)
    return best / best.sum(axis=1, keepdims=True)


def confusion_classes(
    scores: np.ndarray, labels: np.ndarray, conditions: np.ndarray, relation: np.ndarray
) -> pd.DataFrame:
    """Count the predictions by their relation to the truth.

    Returns
    -------
    pandas.DataFrame
        One row a class: ``class``, ``share`` (of the queries), ``chance`` (of random predictions), ``enrichment``
        (share among wrong predictions over that among random wrong ones; NaN for right predictions and where there are
        no such pairs).
    """
    of_query = relation[[list(conditions).index(label) for label in labels]]
    answered = answers(scores)
    place = range(len(CLASSES))
    share = np.array([np.where(of_query == i, answered, 0).sum(axis=1).mean() for i in place])
    chance = np.array([(of_query == i).mean() for i in place])
    enrichment = np.full(len(CLASSES), np.nan)
    wrong = share[1:].sum() / chance[1:].sum()
    possible = (chance > 0) & (np.arange(len(CLASSES)) > 0) & (wrong > 0)
    enrichment[possible] = share[possible] / chance[possible] / wrong
    return pd.DataFrame({"class": CLASSES, "share": share, "chance": chance, "enrichment": enrichment})


def by_condition(scores: np.ndarray, labels: np.ndarray, conditions: np.ndarray, relation: np.ndarray) -> pd.DataFrame:
    """Evaluate each condition's queries and name their most frequent mistake.

    Returns
    -------
    pandas.DataFrame
        One row a condition with queries: ``condition``, ``queries``, the metrics of :data:`PER_CONDITION`,
        ``mistaken_for`` (empty where none is wrong), ``mistaken_share`` (of the queries), ``mistaken_class``.
    """
    values = {name: per_query(name, scores, labels, conditions) for name in PER_CONDITION}
    answered = answers(scores)
    rows = []
    for i, name in enumerate(conditions):
        queries = np.flatnonzero(labels == name)
        if not len(queries):
            continue
        wrong = answered[queries].mean(axis=0)
        wrong[i] = 0
        other = int(wrong.argmax())
        some = wrong[other] > 0
        rows.append(
            {"condition": name, "queries": len(queries)}
            | {metric: float(per_query_values[queries].mean()) for metric, per_query_values in values.items()}
            | {
                "mistaken_for": conditions[other] if some else "",
                "mistaken_share": float(wrong[other]),
                "mistaken_class": CLASSES[relation[i, other]] if some else "",
            }
        )
    return pd.DataFrame(rows)


def groups(facts: pd.DataFrame) -> dict[str, np.ndarray]:
    """Divide the conditions three ways, at the median where it is a number: name of the group -> bool [n_conditions].

    Parameters
    ----------
    facts
        One row a condition: ``genes`` (perturbed), ``e_distance`` (NaN where there are no control cells),
        ``reference_cells``.
    """
    effect = facts["e_distance"]
    strong = effect > effect.dropna().median()
    many = facts["reference_cells"] > facts["reference_cells"].median()
    members: Mapping[str, pd.Series] = {
        "single": facts["genes"] == 1,
        "double": facts["genes"] == 2,
        "strong effect": strong,
        "weak effect": ~strong & effect.notna(),
        "many cells": many,
        "few cells": ~many,
    }
    return {name: member.to_numpy() for name, member in members.items()}


def by_group(table: pd.DataFrame, facts: pd.DataFrame) -> pd.DataFrame:
    """Average a table of :func:`by_condition` over groups of conditions, each condition counting the same.

    Returns
    -------
    pandas.DataFrame
        One row a group that has conditions: ``group``, ``conditions``, the metrics of :data:`PER_CONDITION`.
    """
    by_name = table.set_index("condition")
    rows = []
    for name, member in groups(facts).items():
        of_group = by_name.loc[by_name.index.isin(facts["condition"][member]), list(PER_CONDITION)]
        if len(of_group):
            rows.append({"group": name, "conditions": len(of_group)} | of_group.mean().to_dict())
    return pd.DataFrame(rows)


def tables(scores: Scores, facts: pd.DataFrame, similarity: np.ndarray, threshold: float) -> dict[str, pd.DataFrame]:
    """Summarise one model's predictions by condition, by group of conditions, and by relation to the truth."""
    place = pd.Index(facts["condition"]).get_indexer(scores.conditions)
    relation = relations(scores.conditions, similarity[np.ix_(place, place)], threshold)
    parts = (scores.scores, scores.labels, scores.conditions)
    table = by_condition(*parts, relation)
    return {
        "conditions": table,
        "groups": by_group(table, facts),
        "confusions": confusion_classes(*parts, relation),
    }
