"""The report on real cells: several masks and split seeds of one screen.

The first row of the preset is the headline; beside the report, a folder of its name holds the headline's pages and
pictures. Rows of its mask and its split seed are compared; rows that share neither only have their own table.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reverse_perturbation.comparison.significance import paired_bootstrap
from reverse_perturbation.comparison.verdict import missed_targets
from reverse_perturbation.metrics.registry import heading, per_query, shown_in
from reverse_perturbation.report.markdown import markdown
from reverse_perturbation.report.probe import probe_section
from reverse_perturbation.report.report import about_the_baselines, strongest_section
from reverse_perturbation.report.tables import models_table, slice_of, targets_table
from reverse_perturbation.runs import REFERENCE_BASELINE, Run, describe_baselines, gap_prefix, title, trained_runs
from reverse_perturbation.sections import Compare
from reverse_perturbation.storage import write_atomically
from reverse_perturbation.studies.presets import Preset
from reverse_perturbation.studies.reports import FOLDER, MadeRow, gaps_of, gaps_section, made_by, save, summary

PAGES = ("report.md", "audit.md", "library_query.md", "library_query.csv")
PICTURES = "plots/models"
TESTED = shown_in("tested")


def write(preset: Preset, rows: Mapping[str, MadeRow], about: Mapping[str, Any], folder: Path = FOLDER) -> None:
    """Write the report and the folder of the headline's pages.

    Parameters
    ----------
    preset
        Its first row is the headline.
    rows
        What was made of it.
    about
        Provenance of the report.
    folder
        Where to write it.
    """
    headline, *_ = rows.values()
    splits = [row for row in rows.values() if row.params.mask == headline.params.mask]
    gaps = [query_gaps(row, [REFERENCE_BASELINE, row.comparison["strongest"]["baseline"]]) for row in splits]
    pooled = {
        name: pooled_gaps(of_baseline, headline.params.compare)
        for name, of_baseline in zip(("pooled", "pooled_strongest"), zip(*gaps, strict=True), strict=True)
    }
    report = {
        "provenance": about,
        "rows": {name: summary(row.comparison) for name, row in rows.items()},
        **{name: _by_model(of_baseline) for name, of_baseline in pooled.items()},
    }
    _copy_pages(headline, folder / preset.name)
    parts = [
        *_opening(preset, report, headline),
        *_gaps(report, headline, splits, pooled),
        *_pages(preset.name, headline),
        *_every_model(rows),
    ]
    save(report, parts, folder)


def main_table(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the table of gaps by mask, at the headline's split seed, from the report's JSON."""
    headline, *_ = report["rows"].values()
    return [
        {"mask": row["mask"]} | gap
        for name, row in report["rows"].items()
        if row["split_seed"] == headline["split_seed"]
        for gap in gaps_of(report, name)
    ]


def query_gaps(row: MadeRow, baselines: Sequence[str]) -> list[pd.DataFrame]:
    """Return for each baseline one row a query and model: ``cell``, ``condition``, ``model``, the gaps by metric."""
    ours = {model: _values(row, runs) for model, runs in trained_runs(row.params).items()}
    tables = []
    for baseline in baselines:
        theirs, scores = _values(row, [Run(baseline)]), row.scores(Run(baseline))
        tables.append(
            pd.concat(
                pd.DataFrame({"cell": scores.queries, "condition": scores.labels, "model": model}).assign(
                    **{metric: values[metric] - theirs[metric] for metric in TESTED}
                )
                for model, values in ours.items()
            )
        )
    return tables


def _values(row: MadeRow, runs: Sequence[Run]) -> dict[str, np.ndarray]:
    """Return the tested metrics of each query, averaged over training seeds."""
    scores = [row.scores(run) for run in runs]
    return {
        metric: np.mean([per_query(metric, of.scores, of.labels, of.conditions) for of in scores], axis=0)
        for metric in TESTED
    }


def pooled_gaps(gaps: Sequence[pd.DataFrame], config: Compare) -> list[dict[str, Any]]:
    """Pool the gaps to a baseline over several splits of the same cells.

    A cell that is a query in more than one split enters once, with its mean: cells are what the paired bootstrap,
    stratified by condition, resamples.

    Parameters
    ----------
    gaps
        For each split one row a query and model: ``cell``, ``condition``, ``model`` and the tested metrics.
    config
        Of the bootstrap.

    Returns
    -------
    list of dict
        For each model and metric: ``query cells``, ``gap`` and its 95 % interval.
    """
    together = pd.concat(gaps)
    rows = []
    for model in together["model"].unique():
        of_model = together[together["model"] == model]
        cells = of_model.groupby(["cell", "condition"])[list(TESTED)].mean().reset_index()
        strata = cells["condition"].to_numpy()
        for metric in TESTED:
            gap = paired_bootstrap(cells[metric].to_numpy(), np.zeros(len(cells)), strata, **config.model_dump())
            row = {"model": model, "metric": metric, "query cells": len(cells), "gap": gap.mean}
            rows.append(row | {"95 % low": gap.low, "95 % high": gap.high})
    return rows


def _by_model(pooled: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    by_model: dict[str, Any] = {"query_cells": pooled[0]["query cells"]}
    for row in pooled:
        figures = {"gap": row["gap"], "low": row["95 % low"], "high": row["95 % high"]}
        by_model.setdefault(row["model"], {})[row["metric"]] = figures
    return by_model


def _copy_pages(row: MadeRow, folder: Path) -> None:
    """Put an experiment's pages and pictures into one folder, links to the pictures adapted."""
    with write_atomically(folder) as temporary:
        temporary.mkdir()
        for page in PAGES:
            text = row.files.read_text(f"results/reports/{page}").replace(f"../../{PICTURES}/", "")
            (temporary / page).write_text(text, encoding="utf-8")
        for path in row.files.glob(f"{PICTURES}/*.png"):
            row.files.get_file(path, temporary / Path(path).name)


def _opening(preset: Preset, report: Mapping[str, Any], headline: MadeRow) -> list[str]:
    comparison, params = headline.comparison, headline.params
    encoder = title(params.encoder)
    missed = missed_targets(comparison)
    verdict = f"{len(missed)} of {len(comparison['targets'])} are missed" if missed else "every one is met"
    settings = {key: value for key, value in preset.settings.items() if not key.startswith("data.") and key != "seeds"}
    return [
        f"# {encoder} against logistic regression on real cells",
        f"{slice_of(comparison['provenance'])}, training seeds {', '.join(map(str, params.seeds))}. "
        f"{made_by(report, preset.overrides)}",
        f"Settings other than in params.yaml ({preset.file}): "
        + ", ".join(f"`{key}={json.dumps(value)}`" for key, value in settings.items())
        + "; chosen by cross-validation inside the reference and validation cells.",
        ""
        if params.model_dump()[params.encoder].get("checkpoint")
        else f"No pretrained weights were used: {encoder} is a small model of its architecture, pretrained on the "
        "reference and control cells of this file alone. Its results say nothing about the official checkpoint.",
        f"**The specification's targets under the headline mask, {params.mask}: {verdict}.** They were set for the "
        "full Norman screen; a subset of it is harder, also for logistic regression.",
        markdown(targets_table(comparison)),
    ]


def _gaps(
    report: Mapping[str, Any],
    headline: MadeRow,
    splits: Sequence[MadeRow],
    pooled: Mapping[str, Sequence[Mapping[str, Any]]],
) -> list[str]:
    best = [f"`{row.comparison['strongest']['baseline']}` in split {row.params.split.seed}" for row in splits]
    return [
        *gaps_section(headline.params.models, main_table(report)),
        *strongest_section(headline.comparison),
        f"## Over split seeds, mask {headline.params.mask}",
        "Means and standard deviations over the training seeds of each split; the gap is to `logreg`. The last rows "
        "are means over the splits.",
        about_the_baselines(describe_baselines(headline.params)),
        markdown(_over_splits([row.comparison for row in splits])),
        "The gap to `logreg` over all splits together. A cell that is a query in several splits enters once, with its "
        "mean; the paired bootstrap resamples cells, stratified by condition.",
        _pooled_table(pooled["pooled"]),
        "The same to the strongest baseline of each split, chosen by cross-validation in its known cells: "
        f"{', '.join(best)}.",
        _pooled_table(pooled["pooled_strongest"]),
    ]


def _pooled_table(pooled: Sequence[Mapping[str, Any]]) -> str:
    return markdown([{**row, "metric": heading(row["metric"])} for row in pooled])


def _over_splits(comparisons: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    about = comparisons[0]["provenance"]
    rows = [
        {"split seed": str(comparison["provenance"]["split_seed"]), "model": model}
        | {
            "exact_hit@1": comparison[model]["exact_hit@1"],
            "exact_hit@1 std": comparison[model]["std"]["exact_hit@1"],
            "mrr": comparison[model]["mrr"],
            "mrr std": comparison[model]["std"]["mrr"],
            f"{REFERENCE_BASELINE} exact_hit@1": comparison[REFERENCE_BASELINE]["exact_hit@1"],
        }
        | {f"{baseline} mrr": comparison[baseline]["mrr"] for baseline in about["baselines"]}
        | {"gap in mrr": comparison[f"{prefix}gap"]["mrr"]}
        | {f"95 % {end}": comparison[f"{prefix}interval"]["mrr"][end] for end in ("low", "high")}
        for model in about["models"]
        for prefix in [gap_prefix(model, about["models"][0])]
        for comparison in comparisons
    ]
    shown = pd.DataFrame(rows).drop(columns=["exact_hit@1 std", "mrr std", "95 % low", "95 % high"])
    means = shown.groupby("model", sort=False).mean(numeric_only=True).reset_index()
    return rows + [{"split seed": "mean"} | {str(k): v for k, v in row.items()} for row in means.to_dict("records")]


def _pages(name: str, headline: MadeRow) -> list[str]:
    return [
        "## Training",
        f"![Training curves]({name}/training.png)",
        "Fine-tuning under the headline mask, the selection fit of each model and seed; epoch 0 of fusion is logistic "
        f"regression. All pages of this row: [report]({name}/report.md) with ceilings, errors and confidence, "
        f"[libraries and queries]({name}/library_query.md), [data]({name}/audit.md).",
        probe_section(headline.metrics("probe")),
    ]


def _every_model(rows: Mapping[str, MadeRow]) -> list[str]:
    return [
        part
        for row in rows.values()
        for part in (
            f"## Mask {row.params.mask}, split seed {row.params.split.seed}: every model and seed",
            markdown(models_table(row.of_all_runs())),
        )
    ]
