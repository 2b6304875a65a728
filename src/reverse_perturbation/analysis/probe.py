"""Leak probes: classifiers restricted to features that should not reveal the condition.

Each probe is a logistic regression fitted on reference and validation cells. Chance is what a model without input
reaches by ranking the conditions by their frequency among those cells: its optimum, above 1 / C.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
from anndata import AnnData

from reverse_perturbation.data.screen.mask import MaskedCounts, apply_mask, target_columns
from reverse_perturbation.metrics.registry import REGISTRY, per_query, shown_in
from reverse_perturbation.models.linear.logreg import LogisticRegression
from reverse_perturbation.sections import Mask

METRICS = shown_in("brief")
# Under these masks these probes must find nothing: the columns they see are empty.
MUST_BE_AT_CHANCE: dict[Mask, tuple[str, ...]] = {"all_targets": ("targets", "zeros")}
Z99 = 2.5758  # 99 % of a normal distribution lies within this many standard deviations


def features(adata: AnnData, masked: MaskedCounts, known: np.ndarray) -> dict[str, sp.csr_matrix | None]:
    """Return what each probe sees of the masked cells; None where the data lacks it.

    Parameters
    ----------
    adata, masked
        All cells.
    known
        Rows of the reference and validation cells, on which ``depth`` is centred.

    Returns
    -------
    dict
        CSR float32 [n_cells, ...]: ``targets``, log1p of the counts of the target genes; ``zeros``, whether they are
        above zero; ``depth``, log of depth and of the number of expressed genes, centred, and their squares;
        ``gem_group``, one column a lane.
    """
    labels = adata.obs["condition"].astype(str)
    columns = sorted({c for indices in target_columns(labels, adata.var_names).values() for c in indices})
    targets = masked.counts[:, columns].astype(np.float32)
    depth = np.log1p(np.stack([masked.totals, np.diff(masked.counts.indptr)], axis=1))
    depth -= depth[known].mean(axis=0)
    groups = None
    if "gem_group" in adata.obs:
        names, code = np.unique(adata.obs["gem_group"].astype(str), return_inverse=True)
        ones = np.ones(len(code), dtype=np.float32)
        groups = sp.csr_matrix((ones, (np.arange(len(code)), code)), shape=(len(code), len(names)))
    return {
        "targets": targets.log1p() if columns else None,
        "zeros": (targets > 0).astype(np.float32) if columns else None,
        "depth": sp.csr_matrix(np.hstack([depth, depth**2]), dtype=np.float32),
        "gem_group": groups,
    }


def fit_probe(seen: sp.csr_matrix, labels: np.ndarray, parts: np.ndarray) -> dict[str, Any]:
    """Fit a probe and compare it with chance.

    Parameters
    ----------
    seen
        CSR float32 [n, n_columns].
    labels, parts
        Object arrays [n]: conditions, and ``reference``, ``validation`` or ``query``.

    Returns
    -------
    dict
        For each of :data:`METRICS` ``found``, ``chance``, and the 99 % interval of their difference over paired
        queries, ``low`` and ``high`` (normal); ``at_chance``: no interval is on the better side of zero alone.
    """
    known, query = np.flatnonzero(parts != "query"), np.flatnonzero(parts == "query")
    model = LogisticRegression("max_abs", 1.0, 100).fit(seen[known], labels[known])
    scores = model.scores(seen[query])
    blind = np.tile(_by_frequency(labels[known], model.conditions), (len(query), 1))
    result: dict[str, Any] = {}
    for name in METRICS:
        ours, chance = (per_query(name, each, labels[query], model.conditions) for each in (scores, blind))
        gap, half = float((ours - chance).mean()), Z99 * float((ours - chance).std()) / len(query) ** 0.5
        result[name] = {
            "found": float(ours.mean()),
            "chance": float(chance.mean()),
            "low": gap - half,
            "high": gap + half,
        }
    return result | {"at_chance": not any(_better(name, **result[name]) for name in METRICS)}


def probe_mask(adata: AnnData, places: np.ndarray, labels: np.ndarray, parts: np.ndarray, mask: Mask) -> dict[str, Any]:
    """Fit every probe under one mask.

    Parameters
    ----------
    adata
        All prepared cells.
    places
        Rows of the cells of the split.
    labels, parts
        Their conditions and parts.
    mask
        Applied to all cells first.

    Returns
    -------
    dict
        Probe -> the metrics of :func:`fit_probe`, or None where the data lacks its features.
    """
    seen = features(adata, apply_mask(adata, mask), places[parts != "query"])
    return {name: None if x is None else fit_probe(x[places], labels, parts) for name, x in seen.items()}


def leaks(metrics: Mapping[Mask, Mapping[str, Any]]) -> list[str]:
    """Name the probes, as ``mask: probe``, that are above chance although the mask should hide their features."""
    return [
        f"{mask}: {name}"
        for mask, names in MUST_BE_AT_CHANCE.items()
        for name in names
        if metrics[mask][name] is not None and not metrics[mask][name]["at_chance"]
    ]


def _better(metric: str, low: float, high: float, **_: float) -> bool:
    """Whether an interval of the difference from chance is on its better side alone."""
    return low > 0 if REGISTRY[metric].direction == "higher" else high < 0


def _by_frequency(labels: np.ndarray, conditions: np.ndarray) -> np.ndarray:
    """Score conditions by their number of cells; ties go by name, as a fitted model breaks them too."""
    counts = np.array([np.count_nonzero(labels == condition) for condition in conditions])
    scores = np.empty(len(counts))
    scores[np.argsort(-counts, kind="stable")] = -np.arange(len(counts))
    return scores
