"""The report on the specification's protocol, on a simulated screen of the size of Norman 2019."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reverse_perturbation.report.markdown import markdown
from reverse_perturbation.report.report import about_the_baselines
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


def write(preset: Preset, rows: Mapping[str, MadeRow], about: Mapping[str, Any], folder: Path = FOLDER) -> None:
    """Write the report.

    Parameters
    ----------
    preset
        Has one row.
    rows
        What was made of it.
    about
        Provenance of the report.
    folder
        Where to write it.
    """
    ((name, row),) = rows.items()
    comparison, size = row.comparison, row.params.data.simulated
    report = {"provenance": about, "rows": {name: summary(comparison)}}
    parts = [
        "# The specification's protocol at Norman scale",
        SIMULATED,
        f"{slice_of(comparison['provenance'])}; {size.n_cells:,} cells x {size.n_genes:,} genes, {size.n_conditions} "
        f"labels. {made_by(report, preset.overrides)}",
        "## Targets",
        *targets_section(comparison),
        *gaps_section(about["models"], main_table(report)),
        "## Every model and seed",
        about_the_baselines(describe_baselines(row.params)),
        markdown(models_table(row.of_all_runs())),
    ]
    save(report, parts, folder)


def main_table(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the table of gaps, from the report's JSON."""
    (row,) = report["rows"]
    return gaps_of(report, row)
