"""Markdown tables."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from reverse_perturbation.retrieval.compare import TESTED, TRAINED

HEADLINE = (
    "exact_hit@1",
    "exact_hit@5",
    "exact_hit@10",
    "relevant_hit@1",
    "macro_hit@1",
    "mrr",
    "mrr@10",
    "ndcg@5",
    "graded_ndcg@5",
    "confidence_auc",
)

SIMULATED = (
    "> **Simulated cells.** These figures show that the pipeline works and how the models compare on a generative\n"
    "> model of our own (docs/simulator.md). They say nothing about biology; results on real cells are in\n"
    "> [norman_subset.md](norman_subset.md)."
)


def markdown(rows: Sequence[Mapping[str, Any]] | pd.DataFrame, decimals: int = 3) -> str:
    """Lay out rows as a Markdown table; numbers get ``decimals`` places and stand to the right."""
    frame = pd.DataFrame(rows)
    numeric = [pd.api.types.is_float_dtype(frame[column]) for column in frame]
    head = "| " + " | ".join(map(str, frame.columns)) + " |"
    rule = "|" + "|".join("---:" if right else "---" for right in numeric) + "|"
    body = ["| " + " | ".join(_cell(value, decimals) for value in row) + " |" for row in frame.itertuples(index=False)]
    return "\n".join([head, rule, *body])


def slice_of(provenance: Mapping[str, Any]) -> str:
    """Say in one phrase which data a figure was measured on."""
    return (
        f"{provenance['source']} data, mask {provenance['mask']}, {provenance['labels']} labels, "
        f"{provenance['conditions']} conditions, {provenance['queries']:,} {provenance['query']} queries, "
        f"{'' if provenance['split_kind'] == 'cell' else 'gem group '}split seed {provenance['split_seed']}"
    )


def models_table(runs: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a metrics file: model, how it ranks, its seeds and slice, the headline metrics; last the chance level."""
    rows: list[dict[str, Any]] = []
    for name, content in runs.items():
        about = content["provenance"]
        seed = about["training_seed"]
        row = {
            "model": name.rsplit("-", 1)[0],
            "training seed": "-" if seed is None else str(seed),
            "split seed": str(about["split_seed"]),
            "ranking": about["ranking"],
            "slice": f"{about['source']}, mask {about['mask']}, {about['labels']}",
        }
        rows.append(row | {metric: float(content[metric]) for metric in HEADLINE})
    last = next(iter(runs.values()))
    blank = dict.fromkeys(("training seed", "split seed", "ranking"), "-") | {"slice": rows[-1]["slice"]}
    rows.append({"model": "chance"} | blank | {metric: last["chance"].get(metric) for metric in HEADLINE})
    return rows


def gaps_table(comparison: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a metric that is tested and a model that has training seeds: how far it is from the tuned logreg."""
    return [
        {
            "model": model,
            "metric": metric,
            "mean": comparison[model][metric],
            "std over seeds": comparison[model]["std"][metric] if "seeds" in comparison[model] else None,
            "logreg": comparison["logreg"][metric],
            "gap": comparison[f"{prefix}gap"][metric],
            "95 % low": comparison[f"{prefix}interval"][metric]["low"],
            "95 % high": comparison[f"{prefix}interval"][metric]["high"],
            "ratio": comparison[f"{prefix}ratio"][metric],
        }
        for model, prefix in TRAINED.items()
        if model in comparison
        for metric in TESTED
    ]


def targets_table(targets: Mapping[str, Mapping[str, Any]], meaning: Mapping[str, str]) -> list[dict[str, Any]]:
    """One row a success criterion of the specification."""
    return [
        {
            "criterion": meaning[name],
            "found": float(target["found"]),
            "needed": float(target["needed"]),
            "verdict": "passed" if target["passed"] else "**missed**",
        }
        for name, target in targets.items()
    ]


def _cell(value: Any, decimals: int) -> str:
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return "-"
    return f"{value:.{decimals}f}" if isinstance(value, float) else str(value)
