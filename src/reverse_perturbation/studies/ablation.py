"""The report on the ablation: one table of all rows, the best first."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reverse_perturbation.report.markdown import markdown
from reverse_perturbation.report.tables import slice_of
from reverse_perturbation.runs import REFERENCE_BASELINE
from reverse_perturbation.studies import presets
from reverse_perturbation.studies.presets import Preset
from reverse_perturbation.studies.reports import FOLDER, MadeRow, made_by, save

FINDINGS = presets.FOLDER / "ablation_findings.md"  # written by hand from the table
METRICS = ("exact_hit@1", "mrr")


def write(preset: Preset, rows: Mapping[str, MadeRow], about: Mapping[str, Any], folder: Path = FOLDER) -> None:
    """Write the report.

    Parameters
    ----------
    preset
        Its rows have one foundation model and the same queries.
    rows
        What was made of it.
    about
        Provenance of the report.
    folder
        Where to write it.
    """
    comparisons = {name: row.comparison for name, row in rows.items()}
    first = next(iter(comparisons.values()))
    report = {
        "provenance": about,
        REFERENCE_BASELINE: {metric: first[REFERENCE_BASELINE][metric] for metric in METRICS},
        "rows": {name: _figures(each) for name, each in comparisons.items()},
    }
    parts = [
        "# Ablation on real cells",
        f"{slice_of(first['provenance'])}; training seeds {', '.join(map(str, about['seeds']))}. A row differs from "
        f"`default` as its name says ({preset.file}); `std` is over the training seeds, `gap` is the row minus the "
        f"tuned logistic regression. {made_by(report, preset.overrides)}",
        FINDINGS.read_text(encoding="utf-8"),
        markdown(main_table(report)),
    ]
    save(report, parts, folder)


def _figures(comparison: Mapping[str, Any]) -> dict[str, Any]:
    of_model = comparison[comparison["provenance"]["models"][0]]
    return {
        **{metric: of_model[metric] for metric in METRICS},
        "std": {metric: of_model.get("std", {}).get(metric) for metric in METRICS},  # None with one training seed
        "gap": comparison["gap"]["mrr"],
    }


def main_table(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the table, from the report's JSON."""
    ordered = sorted(report["rows"].items(), key=lambda item: -item[1]["mrr"])
    return [
        {"row": name}
        | {metric: figures[metric] for metric in METRICS}
        | {f"{metric} std": figures["std"][metric] for metric in METRICS}
        | {f"{REFERENCE_BASELINE} mrr": report[REFERENCE_BASELINE]["mrr"], "gap in mrr": figures["gap"]}
        for name, figures in ordered
    ]
