"""The report on real cells: several masks and split seeds of one screen.

The first row of the preset is the headline; beside the report, a folder of its name holds the headline's pages and
pictures. Rows that differ in the split seed alone are pooled. ``screens.md`` has all screens.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reverse_perturbation.comparison.compare import Result, differences
from reverse_perturbation.comparison.headline import METRIC
from reverse_perturbation.comparison.headline import headline as headline_tests
from reverse_perturbation.comparison.significance import bootstrap
from reverse_perturbation.comparison.verdict import missed_targets
from reverse_perturbation.metrics.registry import heading, shown_in
from reverse_perturbation.report.markdown import markdown
from reverse_perturbation.report.probe import probe_section
from reverse_perturbation.report.report import about_the_baselines, about_the_models, strongest_section, tests_section
from reverse_perturbation.report.tables import models_table, slice_of, targets_table
from reverse_perturbation.runs import REFERENCE_BASELINE, STACK, describe_baselines, gap_prefix, title, trained_runs
from reverse_perturbation.sections import NO_CHECKPOINT
from reverse_perturbation.storage import read_json, write_atomically, write_text
from reverse_perturbation.studies.presets import Preset, load_preset, preset_names
from reverse_perturbation.studies.reports import (
    FOLDER,
    OVERVIEW,
    MadeRow,
    compact,
    gaps_of,
    gaps_section,
    made_by,
    save,
    summary,
)

PAGES = ("report.md", "audit.md", "library_query.md", "library_query.csv")
PICTURES = "plots/models"
TESTED = shown_in("tested")
STRONGEST = "strongest"  # the baseline chosen in each split


def write(preset: Preset, rows: Mapping[str, MadeRow], about: Mapping[str, Any], folder: Path = FOLDER) -> None:
    """Write the report, the folder of the headline's pages, and the overview of all screens.

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
    groups: dict[str, list[MadeRow]] = {}
    for row in rows.values():
        groups.setdefault(_group(row), []).append(row)
    report: dict[str, Any] = {
        "provenance": about,
        "screen": headline.params.data.name,
        "rows": {name: summary(row.comparison) for name, row in rows.items()},
        "pooled": {name: pooled(splits) for name, splits in groups.items()},
    }
    _copy_pages(headline, folder / preset.name)
    parts = [
        *_opening(preset, report, headline),
        *(part for name, splits in groups.items() for part in _together(name, report["pooled"][name], splits)),
        *_gaps(report, headline, groups[_group(headline)]),
        *_pages(preset.name, headline),
        *_every_model(rows),
    ]
    save(report, parts, folder)
    write_overview(folder)


def _group(row: MadeRow) -> str:
    """Name the rows that differ in the split seed alone."""
    return _slice(row.params.mask, row.params.split.kind)


def _slice(mask: str, split_kind: str) -> str:
    return mask if split_kind == "cell" else f"{mask}, whole lanes held out"


def main_table(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the table of gaps by mask, at the headline's split seed, from the report's JSON."""
    headline, *_ = report["rows"].values()
    return [
        {"mask": _slice(row["mask"], row.get("split_kind", "cell"))} | gap
        for name, row in report["rows"].items()
        if row["split_seed"] == headline["split_seed"]
        for gap in gaps_of(report, name)
    ]


def pooled(splits: Sequence[MadeRow]) -> dict[str, Any]:
    """Pool several splits of the same cells.

    Every figure is a mean over all queries of all splits. A cell that is a query in several splits is resampled with
    all its occurrences.

    Returns
    -------
    dict
        ``queries`` and ``cells``, how many; ``means``, model -> metric -> mean; ``tests``, those of ``headline``, to
        logreg and to the strongest baseline of each split, ``strongest``; ``stack``, each model's gap in mrr to the
        stack of all baselines, ``gap``, ``low`` and ``high``.
    """
    first = splits[0].params
    results = [row.results() for row in splits]
    best = [row.comparison["strongest"]["baseline"] for row in splits]
    minus = {REFERENCE_BASELINE: [REFERENCE_BASELINE] * len(splits), STRONGEST: best, STACK: [STACK] * len(splits)}
    gaps = {
        (model, name): [differences(METRIC, of[model], of[other][0]) for of, other in zip(results, others, strict=True)]
        for model in trained_runs(first)
        for name, others in minus.items()
    }
    means = {model: _means([of[model] for of in results]) for model in results[0]}
    means[STRONGEST] = _means([of[name] for of, name in zip(results, best, strict=True)])
    # Where logreg is the strongest in every split, that test counts once.
    distinct = {REFERENCE_BASELINE} if set(best) == {REFERENCE_BASELINE} else {REFERENCE_BASELINE, STRONGEST}
    family = {pair: of_pair for pair, of_pair in gaps.items() if pair[1] in distinct}
    base = {pair: means[pair[1]][METRIC] for pair in family}
    to_stack = {
        model: bootstrap(of_pair, **first.compare.model_dump())
        for (model, name), of_pair in gaps.items()
        if name == STACK
    }
    tests = headline_tests(family, base, first.compare, first.targets.relative_gap)
    queries = [of[REFERENCE_BASELINE][0].scores.queries for of in results]
    return {
        "splits": [row.params.split.seed for row in splits],
        "queries": sum(map(len, queries)),
        "cells": len(set(np.concatenate(queries))),
        "strongest": best,
        "means": means,
        "tests": {
            model: {name: of_model.get(name, of_model[REFERENCE_BASELINE]) for name in (REFERENCE_BASELINE, STRONGEST)}
            for model, of_model in tests.items()
        },
        "stack": {model: {"gap": gap.mean, "low": gap.low, "high": gap.high} for model, gap in to_stack.items()},
    }


def _means(splits: Sequence[Sequence[Result]]) -> dict[str, float]:
    """Return the tested metrics over all queries of all splits, each the mean over training seeds."""
    sizes = [len(results[0].scores.queries) for results in splits]
    return {
        metric: float(np.average([np.mean([r.metrics[metric] for r in results]) for results in splits], weights=sizes))
        for metric in TESTED
    }


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
        f"# {encoder} against simple models on real cells: {headline.params.data.name}",
        f"{slice_of(comparison['provenance'])}, training seeds {', '.join(map(str, params.seeds))}. "
        f"{made_by(report, preset.overrides)}",
        f"Settings other than in params.yaml ({preset.file}): "
        + ", ".join(f"`{key}={json.dumps(value)}`" for key, value in settings.items())
        + ". Those of fine-tuning were chosen by cross-validation in the known cells of `norman_subset`, split 42.",
        ""
        if params.model_dump()[params.encoder].get("checkpoint", NO_CHECKPOINT) != NO_CHECKPOINT
        else f"No pretrained weights were used: {encoder} is a small model of its architecture, pretrained on the "
        "reference and control cells of this file alone. Its results say nothing about the official checkpoint.",
        f"**The targets under the headline mask, {params.mask}: {verdict}.** The absolute ones were set for the full "
        "Norman screen; on another one they say little.",
        markdown(targets_table(comparison)),
        about_the_models(params.models),
        about_the_baselines(describe_baselines(params)),
    ]


def _together(group: str, together: Mapping[str, Any], splits: Sequence[MadeRow]) -> list[str]:
    params = splits[0].params
    best = [f"`{name}` in split {seed}" for name, seed in zip(together["strongest"], together["splits"], strict=True)]
    return [
        f"## Mask {group}",
        f"{together['queries']:,} queries of {together['cells']:,} cells, split seeds "
        f"{', '.join(map(str, together['splits']))}. Figures are means over all queries; a cell that is a query in "
        "several splits is resampled with all its occurrences. The strongest baseline is chosen by cross-validation in "
        f"the known cells of a split: {', '.join(best)}.",
        markdown(means_table(together)),
        *tests_section(together["tests"]),
        f"What {title(params.encoder)} adds to all baselines together: the gap in mrr to their stack.",
        markdown(
            [
                {"model": model, "gap in mrr": gap["gap"], "95 % low": gap["low"], "95 % high": gap["high"]}
                for model, gap in together["stack"].items()
            ]
        ),
    ]


def _gaps(report: Mapping[str, Any], headline: MadeRow, splits: Sequence[MadeRow]) -> list[str]:
    return [
        *gaps_section(headline.params.models, main_table(report)),
        *strongest_section(headline.comparison),
        f"## Each split, mask {_group(headline)}",
        "Means and standard deviations over the training seeds of each split; the gap is to `logreg`.",
        markdown(_over_splits([row.comparison for row in splits])),
    ]


def means_table(together: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row a model: its tested metrics over all splits."""
    return [
        {"model": model} | {heading(metric): values[metric] for metric in TESTED}
        for model, values in together["means"].items()
    ]


def _over_splits(comparisons: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    about = comparisons[0]["provenance"]
    return [
        {"split seed": str(comparison["provenance"]["split_seed"]), "model": model}
        | {name: comparison[model][name] for name in ("exact_hit@1", "mrr")}
        | {"mrr std": comparison[model].get("std", {}).get("mrr")}
        | {f"{baseline} mrr": comparison[baseline]["mrr"] for baseline in about["baselines"]}
        | {"gap in mrr": comparison[f"{prefix}gap"]["mrr"]}
        | {f"95 % {end}": comparison[f"{prefix}interval"]["mrr"][end] for end in ("low", "high")}
        for model in about["models"]
        for prefix in [gap_prefix(model, about["models"][0])]
        for comparison in comparisons
    ]


def _pages(name: str, headline: MadeRow) -> list[str]:
    return [
        "## Training",
        f"![Training curves]({name}/training.png)",
        "Fine-tuning under the headline mask, the selection fit of each training seed. "
        f"All pages of this row: [report]({name}/report.md) with ceilings, errors and confidence, "
        f"[libraries and queries]({name}/library_query.md), [data]({name}/audit.md).",
        probe_section(headline.metrics("probe")),
    ]


def _every_model(rows: Mapping[str, MadeRow]) -> list[str]:
    return [
        part
        for row in rows.values()
        for part in (
            f"## Mask {_group(row)}, split seed {row.params.split.seed}: every model and seed",
            markdown(models_table(row.of_all_runs())),
        )
    ]


def write_overview(folder: Path) -> None:
    """Write the page and the figures of all screens at once, from the reports of the presets that have been run."""
    names = [name for name in preset_names() if load_preset(name).report == "screens"]
    files = {name: path for name in names if (path := (folder / name).with_suffix(".json")).exists()}
    found = {name: read_json(path) for name, path in files.items()}
    reports = {name: report for name, report in found.items() if "screen" in report}  # older ones lack it
    groups = {(name, group): found for name, report in reports.items() for group, found in report["pooled"].items()}
    rows = [
        {"screen": f"[{name}]({name}.md)", "mask": group, "model": model}
        | {"mrr": found["means"][model]["mrr"], "strongest baseline": found["means"][STRONGEST]["mrr"]}
        | {key: test[STRONGEST][key] for key in ("gap", "low", "high", "finding")}
        | {"minus logreg": test[REFERENCE_BASELINE]["gap"], "finding, logreg": test[REFERENCE_BASELINE]["finding"]}
        for (name, group), found in groups.items()
        for model, test in found["tests"].items()
    ]
    about = (
        "mrr over all queries of all splits; the gap is to the strongest baseline of each split, with its 95 % "
        "interval over cells; findings are corrected by Holm's method within each screen and mask, see its page."
    )
    overview = {name: {"screen": report["screen"], "pooled": report["pooled"]} for name, report in reports.items()}
    write_text(folder / f"{OVERVIEW}.json", f"{compact(overview)}\n")
    write_text(folder / f"{OVERVIEW}.md", f"# Every real screen\n\n{about}\n\n{markdown(rows)}\n")
