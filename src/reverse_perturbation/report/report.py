"""The report: the verdict first, then every row behind it, those that lose included."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from reverse_perturbation.comparison.verdict import masked_targets, missed_targets
from reverse_perturbation.metrics.registry import heading
from reverse_perturbation.report.analysis import Tables, ceilings_section, confidence_section, errors_section
from reverse_perturbation.report.library_query import chosen_table
from reverse_perturbation.report.markdown import escaped, markdown
from reverse_perturbation.report.tables import (
    SIMULATED,
    findings,
    gaps_table,
    models_table,
    slice_of,
    strongest_table,
    targets_table,
    tests_table,
    weights_table,
)
from reverse_perturbation.runs import FUSION, REFERENCE_BASELINE, gap_prefix, title

PSEUDOBULK = (
    "The queries are pseudo-bulks, and draws of one condition may share cells: they are not independent, so the\n"
    "interval is too narrow. {skipped} conditions have too few query cells and no query."
)
SPREAD = {"mean": "mean", "std": "std", "low": "95 % low", "high": "95 % high"}
PLOTS = {
    "hit_at_k.png": "Share of queries whose condition (left), or one that shares a gene with it (right), is among the "
    "first k.",
    "coverage.png": "Accuracy of the most confident predictions; confidence is the margin of the first score over the "
    "second.",
    "confusion.png": "First-ranked condition of each condition's queries.",
    "training.png": "Fine-tuning, the selection fit of each training seed.",
}


def about_the_models(models: Sequence[str]) -> str:
    """Describe the models that training has a part in."""
    encoder = title(models[0])
    about = (
        f"`{models[0]}` is {encoder} alone, one model a training seed; an `ensemble` averages the log-probabilities "
    )
    about += "of all training seeds."
    if FUSION not in models:
        return about
    return (
        f"{about} `{FUSION}` is a weighted sum of the log-probabilities of {encoder} and of every baseline, the "
        "weights fitted on validation."
    )


def tests_section(tests: Mapping[str, Any]) -> list[str]:
    """Show the headline tests and say how to read them."""
    return [
        "The headline tests: the gap in mrr to `logreg` and to the strongest baseline. p is of a paired bootstrap over "
        "cells, within conditions, corrected by Holm's method for all tests of this table. `ahead` and `behind`: "
        "corrected p below 0.05; `equivalent`: two one-sided tests at 5 % show the gap within the share of the "
        "baseline's mrr that the targets allow; `open`: neither. In the columns `seeds too` training seeds are "
        "resampled as well; with few seeds this "
        "interval is still too narrow.",
        markdown(tests_table(tests)),
    ]


def weights_section(metrics_files: Sequence[Mapping[str, Any]]) -> list[str]:
    """Show the weights of combined models."""
    return [
        "Weights of the log-probabilities in combined models, at least 0, of the least cross-entropy on the validation "
        "cells; an ensemble has equal weights:",
        markdown(weights_table(metrics_files)),
    ]


def about_the_baselines(descriptions: Mapping[str, str]) -> str:
    """List the baselines, each with the first line of its file."""
    return "\n".join(f"- `{name}`: {description}" for name, description in descriptions.items())


def report(
    comparison: Mapping[str, Any],
    metrics_files: Sequence[Mapping[str, Any]],
    descriptions: Mapping[str, str],
    grid: pd.DataFrame,
    analysis: Tables,
    similar: float,
    plots: str,
) -> str:
    """Write the report as Markdown.

    Parameters
    ----------
    comparison
        Of the stage compare.
    metrics_files
        Content of each run's metrics file.
    descriptions
        Baseline -> what it is.
    grid
        Of the stage library_query: every library and query of every model.
    analysis
        Of the stage analysis.
    similar
        Minimum cosine of profiles that count as similar.
    plots
        Relative path of the folder with the pictures.
    """
    about = comparison["provenance"]
    encoder = title(about["models"][0])
    missed = missed_targets(comparison)
    verdict = "every target is met"
    if missed:
        verdict = f"{len(missed)} of {len(comparison['targets'])} targets are missed"
    parts = [
        f"# {encoder} against logistic regression",
        SIMULATED if about["source"] == "simulated" else "",
        f"**Verdict: {verdict}.** Measured on: {slice_of(about)}; training seeds "
        f"{', '.join(map(str, about['training_seeds']))}; {masked_targets(about)}.",
        "## The success criteria",
        markdown(targets_table(comparison)),
        "## The gap to the tuned logistic regression",
        f"{about_the_models(about['models'])} Figures are means over the training seeds; the interval is a paired "
        "bootstrap over queries, stratified by condition. It does not include the variation between seeds, which "
        "stands below.",
        PSEUDOBULK.format(skipped=_skipped(metrics_files)) if about["query"] == "pseudobulk" else "",
        markdown(gaps_table(comparison)),
        *tests_section(comparison["tests"]),
        *_over_seeds(comparison),
        *_other_gaps(comparison),
        *strongest_section(comparison),
        *ceilings_section(analysis, plots),
        *errors_section(analysis, plots, similar),
        *confidence_section(analysis, plots),
        "## Every model and seed",
        "`ranking` says what orders the conditions: a classifier's probabilities, or similarity to a library. "
        "Validation figures come from fits that have not seen those cells, but for the weights of the stack and of "
        "fusion, a few numbers.",
        about_the_baselines(descriptions),
        markdown(models_table(metrics_files)),
        findings(metrics_files),
        markdown(_validation_rows(metrics_files)),
        *weights_section(metrics_files),
        "## Pictures",
        *[f"![{caption}]({plots}/{name})\n\n{caption}" for name, caption in PLOTS.items()],
        "## Libraries and queries",
        "Each model's library with the highest validation mrr, and its metrics on the query cells, with 95 % "
        "intervals; `classifier` is the model's own on the same queries. Every library, similarity, embedding and "
        "query: [library_query.md](library_query.md).",
        markdown(chosen_table(grid, about["labels"])),
        "## Provenance",
        markdown([{"field": name, "value": _value(value)} for name, value in about.items()]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def strongest_section(comparison: Mapping[str, Any]) -> list[str]:
    """Say which baseline is the strongest, how it was chosen, and the gap to it."""
    best = comparison["strongest"]["baseline"]
    parts = [
        "## The strongest baseline",
        f"`{best}` has the highest mrr of known cells held out in cross-validation (`tuning.folds`; of one fold, the "
        "validation part), on folds that all baselines share; no query cell has a part in the choice. "
        "Baselines without class probabilities are left out.",
        markdown(strongest_table(comparison)),
    ]
    if best != REFERENCE_BASELINE:
        parts += [f"The gap to `{best}`:", markdown(gaps_table(comparison, best))]
    return parts


def _value(value: Any) -> str:
    return escaped(value) if isinstance(value, str) else str(value)


def _skipped(metrics_files: Sequence[Mapping[str, Any]]) -> int:
    """Return how many conditions have no query; the same in all runs, which share queries and conditions."""
    count: int = metrics_files[0]["provenance"]["skipped_conditions"]
    return count


def _over_seeds(comparison: Mapping[str, Any]) -> list[str]:
    models, seeds = comparison["provenance"]["models"], comparison["provenance"]["training_seeds"]
    if len(seeds) < 2:
        return [f"{title(models[0])} was trained with one seed: the variation between seeds is not known."]
    return [
        f"Over the {len(seeds)} training seeds, with the 95 % interval of the mean (Student's t, wide for few seeds):",
        markdown(
            [
                {"model": model, "metric": heading(name)} | {shown: row[key] for key, shown in SPREAD.items()}
                for model in models
                for name, row in comparison[model].get("seeds", {}).items()
            ]
        ),
    ]


def _other_gaps(comparison: Mapping[str, Any]) -> list[str]:
    models = comparison["provenance"]["models"]
    rows = [
        {"model": model, "minus": baseline, "metric": heading(name), "gap": gap["mean"], "95 % low": gap["low"]}
        | {"95 % high": gap["high"]}
        | {f"{end}, seeds too": gap["with_seeds"][end] if "with_seeds" in gap else None for end in ("low", "high")}
        for model in models
        for baseline, gaps in comparison[f"{gap_prefix(model, models[0])}gaps"].items()
        for name, gap in gaps.items()
        if name == "mrr" or baseline == REFERENCE_BASELINE
    ]
    return [
        f"The gap to every baseline in mrr, and to `{REFERENCE_BASELINE}` in every tested metric. For the last two "
        "columns training seeds are resampled as well as queries; with few seeds this interval is still too narrow:",
        markdown(rows),
    ]


def _validation_rows(metrics_files: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for content in metrics_files:
        about, validation = content["provenance"], content["validation"]
        row = {
            "model": about["model"],
            "training seed": "-" if about["training_seed"] is None else str(about["training_seed"]),
        }
        for name, value in validation.items():
            row |= {f"validation {heading(name)}": value, f"query {heading(name)}": content[name]}
        rows.append(row)
    return rows
