"""The report on the full Norman file with a given checkpoint: the specification's protocol and the leak-free one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py

from reverse_perturbation.metrics.registry import heading, shown_in
from reverse_perturbation.models.scgpt.encoder.checkpoint import load_checkpoint
from reverse_perturbation.report.markdown import markdown
from reverse_perturbation.report.report import about_the_baselines, strongest_section, tests_section
from reverse_perturbation.report.tables import SIMULATED, models_table, slice_of
from reverse_perturbation.runs import describe_baselines
from reverse_perturbation.studies.presets import Preset
from reverse_perturbation.studies.reports import (
    FOLDER,
    MadeRow,
    gaps_of,
    gaps_section,
    made_by,
    save,
    summary,
    targets_section,
)

REHEARSAL = (
    "> **A rehearsal.** The checkpoint's weights are random and the cells few and simulated: the figures show that "
    "every stage runs to its end, and nothing else."
)
PUBLISHED = "scGPT whole-human"
TRAINED_ON = (
    "33 million cells of normal human tissue from CELLxGENE (Cui et al., Nat. Methods 2024). Norman 2019, a screen in "
    "a leukaemia line, is not named among them; this was not checked cell by cell."
)


def write(preset: Preset, rows: Mapping[str, MadeRow], about: Mapping[str, Any], folder: Path = FOLDER) -> None:
    """Write the report.

    Parameters
    ----------
    preset
        Each row is a protocol.
    rows
        What was made of them.
    about
        Provenance of the report.
    folder
        Where to write it.
    """
    comparisons = {name: row.comparison for name, row in rows.items()}
    first = next(iter(rows.values()))
    report = {"provenance": about, "rows": {name: summary(comparison) for name, comparison in comparisons.items()}}
    parts = [
        "# The full Norman screen with a given checkpoint",
        *([SIMULATED, REHEARSAL] if preset.name.endswith("_rehearsal") else []),
        made_by(report, preset.overrides),
        "## Both protocols",
        markdown(main_table(report)),
        *(part for name, row in rows.items() for part in _protocol(name, row, report)),
        "## What went in",
        markdown(provenance_card(first, about)),
        "## Every model and seed",
        about_the_baselines(describe_baselines(first.params)),
        *(markdown(models_table(row.of_all_runs())) for row in rows.values()),
    ]
    save(report, parts, folder)


def main_table(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return every model's figures under both protocols, from the report's JSON."""
    metrics = shown_in("tested")
    return [
        {"protocol": name, "mask": row["mask"], "labels": row["labels"], "model": model}
        | {heading(metric): row[model][metric] for metric in metrics}
        for name, row in report["rows"].items()
        for model in [*report["provenance"]["models"], *report["provenance"]["baselines"]]
    ]


def _protocol(name: str, row: MadeRow, report: Mapping[str, Any]) -> list[str]:
    comparison = row.comparison
    return [
        f"## {name}",
        f"{slice_of(comparison['provenance'])}.",
        *targets_section(comparison),
        *tests_section(comparison["tests"]),
        *strongest_section(comparison),
        *gaps_section(comparison["provenance"]["models"], gaps_of(report, name)),
    ]


def provenance_card(row: MadeRow, about: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return what is known of the checkpoint and the cells: one row a fact."""
    given = load_checkpoint(row.params.scgpt.checkpoint).report
    assert given is not None
    ((name, digest),) = about["data_sha256"].items()
    facts = {
        "checkpoint": f"{given.name or 'of unknown origin'}; {given.loaded} tensors; sha256 {given.sha256}",
        "it was trained on": TRAINED_ON if given.name == PUBLISHED else "not known",
        "cells": f"{name}; sha256 {digest}",
        "cell line in the file": cell_line(Path(row.params.data.path)),
        "cell line of the screen": "K562 (Norman et al., Science 2019); GEARS's file says otherwise",
    }
    return [{"what": what, "found": found} for what, found in facts.items()]


def cell_line(path: Path) -> str:
    """Return what ``obs`` of the user's file calls the cells, as it is."""
    if path.suffix != ".h5ad":
        return "simulated"
    with h5py.File(path) as file:
        column = next((file["obs"][key] for key in ("cell_type", "cell_line", "celltype") if key in file["obs"]), None)
        if column is None:
            return "not named"
        values = column["categories"] if isinstance(column, h5py.Group) else column
        return ", ".join(sorted(set(values.asstr()[:])))
