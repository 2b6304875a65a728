"""Sections of the report on the split and on leak probes."""

from collections.abc import Mapping
from typing import Any

from reverse_perturbation.metrics.registry import heading, shown_in
from reverse_perturbation.report.markdown import markdown

METRICS = shown_in("brief")

SEES = {
    "targets": "counts of the target genes",
    "zeros": "which target genes are above zero",
    "depth": "depth, number of expressed genes",
    "gem_group": "gem group",
}


def cells_section(split: Mapping[str, Any]) -> str:
    """Return the section on the split, from the metrics of the stage split."""
    cells = split["cells"]
    return "\n\n".join(
        [
            "## The cells",
            f"{cells['reference']:,} reference, {cells['validation']:,} validation and {cells['query']:,} query cells "
            f"of {split['conditions']} conditions, no cell in two parts; {split['legacy_conditions_left_out']} legacy "
            f"conditions with too few cells are left out ({split['cells_left_out']:,} cells). Cells with exactly the "
            f"counts of a cell seen before: {split['duplicated_queries']:.2%} of the query cells (of "
            f"reference and validation), {split['duplicated_validation']:.2%} of the validation cells (of reference). "
            "All models had the same masked counts, genes and parts and were evaluated by the same code: figures are "
            "compared only where the hashes under Provenance are equal.",
        ]
    )


def probe_section(probe: Mapping[str, Any]) -> str:
    """Return the section on leak probes, from the metrics of the stage probe."""
    leaking = ", ".join(probe["leaks"])
    rows = [
        {"mask": mask, "features": SEES[name]} | (_row(of) if of else {"verdict": "absent from the data"})
        for mask, probes in probe["masks"].items()
        for name, of in probes.items()
    ]
    columns = ["mask", "features", *(column for name in METRICS for column in _columns(name)), "verdict"]
    parts = [
        "## Leak probes",
        f"**Leak: {leaking} above chance.**" if leaking else "Under `all_targets` the target genes reveal nothing.",
        "Logistic regressions on reference and validation cells without other expression. Chance ranks the conditions "
        "by their frequency. Depth and gem group are not expression: a model that reads them can be accurate by them.",
        markdown([{column: row.get(column, "-") for column in columns} for row in rows]),
    ]
    return "\n\n".join(parts) + "\n"


def _columns(metric: str) -> tuple[str, str, str]:
    return heading(metric), f"chance {metric}", f"99 % of {metric} gap"


def _row(of: Mapping[str, Any]) -> dict[str, str]:
    row = {"verdict": "at chance" if of["at_chance"] else "above chance"}
    for name in METRICS:
        found = of[name]
        texts = f"{found['found']:.3f}", f"{found['chance']:.3f}", f"{found['low']:+.3f} to {found['high']:+.3f}"
        row |= dict(zip(_columns(name), texts, strict=True))
    return row
