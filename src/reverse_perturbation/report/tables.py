"""Rows of the tables on models and gaps."""

from collections.abc import Mapping, Sequence
from typing import Any

from reverse_perturbation.comparison.verdict import meaning, number
from reverse_perturbation.metrics.registry import heading, shown_in
from reverse_perturbation.report.markdown import escaped
from reverse_perturbation.runs import REFERENCE_BASELINE, Run, gap_prefix

HEADLINE = shown_in("tables")
SIMULATED = (
    "> **Simulated cells.** These figures show that the pipeline works and how the models compare on a generative\n"
    "> model of our own (docs/simulator.md). They say nothing about biology; results on real cells are in\n"
    "> [norman_subset.md](norman_subset.md)."
)


def slice_of(provenance: Mapping[str, Any]) -> str:
    """Say in one phrase which data a figure was measured on."""
    return (
        f"{escaped(provenance['data'])} data, mask {provenance['mask']}, {provenance['labels']} labels, "
        f"{provenance['conditions']} conditions, {provenance['queries']:,} {provenance['query']} queries, "
        f"{'' if provenance['split_kind'] == 'cell' else 'gem group '}split seed {provenance['split_seed']}"
    )


def models_table(metrics_files: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row a metrics file: model, ranking, seeds and slice, the headline metrics; last the chance level."""
    rows: list[dict[str, Any]] = []
    for content in metrics_files:
        about = content["provenance"]
        row = {
            "model": about["model"],
            "training seed": _seed(content),
            "split seed": str(about["split_seed"]),
            "ranking": about["ranking"],
            "slice": f"{escaped(about['data'])}, mask {about['mask']}, {about['labels']}",
        }
        rows.append(row | {heading(metric): float(content[metric]) for metric in HEADLINE})
    first = metrics_files[0]
    blank = dict.fromkeys(("training seed", "split seed", "ranking"), "-") | {"slice": rows[-1]["slice"]}
    rows.append({"model": "chance"} | blank | {heading(metric): first["chance"].get(metric) for metric in HEADLINE})
    return rows


def findings(metrics_files: Sequence[Mapping[str, Any]]) -> str:
    """List what went wrong in the training of a model, one line a run; empty if nothing did."""
    told = [(content["provenance"], content["provenance"].get("finding")) for content in metrics_files]
    return "\n".join(f"- `{Run(about['model'], about['training_seed']).name}`: {text}." for about, text in told if text)


def gaps_table(comparison: Mapping[str, Any], baseline: str = REFERENCE_BASELINE) -> list[dict[str, Any]]:
    """Return one row a tested metric and a model that has training seeds: its gap to a baseline."""
    models = comparison["provenance"]["models"]
    rows = []
    for model in models:
        prefix = gap_prefix(model, models[0])
        for metric, gap in _gaps(comparison, model, prefix, baseline).items():
            rows.append(
                {
                    "model": model,
                    "metric": heading(metric),
                    "mean": comparison[model][metric],
                    "std over seeds": comparison[model]["std"][metric] if "seeds" in comparison[model] else None,
                    baseline: comparison[baseline][metric],
                    **gap,
                }
            )
    return rows


def _gaps(comparison: Mapping[str, Any], model: str, prefix: str, baseline: str) -> dict[str, dict[str, float | None]]:
    """Return for each tested metric the gap to a baseline, its interval and the ratio, under the titles of columns."""
    if baseline == REFERENCE_BASELINE:  # as it is in the file: older reports have no other
        gaps, ratios = (comparison[f"{prefix}{name}"] for name in ("gap", "ratio"))
        ends = comparison[f"{prefix}interval"]
    else:
        ends = comparison[f"{prefix}gaps"][baseline]
        gaps = {metric: comparison[model][metric] - comparison[baseline][metric] for metric in ends}
        base = comparison[baseline]
        ratios = {metric: comparison[model][metric] / base[metric] if base[metric] else None for metric in ends}
    return {
        metric: {"gap": gaps[metric], "95 % low": end["low"], "95 % high": end["high"], "ratio": ratios[metric]}
        for metric, end in ends.items()
    }


def tests_table(tests: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return one row a headline test."""
    return [
        {"model": model, "minus": baseline, "gap in mrr": test["gap"]}
        | {f"95 % {end}": test[end] for end in ("low", "high")}
        | {f"95 % {end}, seeds too": test.get(f"{end}_with_seeds") for end in ("low", "high")}
        | {"p": test["p"], "p, Holm": test["p_holm"], "finding": test["finding"]}
        for model, of_model in tests.items()
        for baseline, test in of_model.items()
    ]


def weights_table(metrics_files: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row a combined model and seed: the weights of what it is made of."""
    return [
        {"model": content["provenance"]["model"], "training seed": _seed(content)} | dict(content["weights"])
        for content in metrics_files
        if "weights" in content
    ]


def _seed(content: Mapping[str, Any]) -> str:
    seed = content["provenance"]["training_seed"]
    return "-" if seed is None else str(seed)


def strongest_table(comparison: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row a baseline with class probabilities: how it did on known cells held out, the best first."""
    held_out = comparison["strongest"]["held_out"]
    ordered = sorted(held_out, key=lambda name: -held_out[name]["mrr"])
    return [
        {"baseline": name, "configurations tried": str(held_out[name]["configurations"])}
        | {f"held out {metric}": held_out[name][metric] for metric in ("exact_hit@1", "mrr")}
        | {f"query {metric}": comparison[name][metric] for metric in ("exact_hit@1", "mrr")}
        for name in ordered
    ]


def targets_table(comparison: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row a success criterion."""
    encoder = comparison["provenance"]["models"][0]
    return [
        {
            "criterion": meaning(name, encoder),
            "found": number(target["found"]),
            "needed": number(target["needed"]),
            "verdict": "passed" if target["passed"] else "**missed**",
        }
        for name, target in comparison["targets"].items()
    ]
