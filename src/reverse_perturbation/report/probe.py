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
    if "single_genes" in probe:  # figures made before this probe lack it
        parts += _single_genes(probe["single_genes"])
    return "\n\n".join(parts) + "\n"


def _single_genes(masks: Mapping[str, Any]) -> list[str]:
    """Return a paragraph and a table on genes that tell a target alone."""
    suspected = masks["all_targets"]["suspected"]
    names = ", ".join(f"{said['gene']} for {said['target']}" for said in suspected)
    verdict = (
        f"**Suspected under `all_targets`: {names}.** Each is a marker of that perturbation, or the target under "
        "another name; in the second case rename it and run `dvc repro`."
        if suspected
        else "Under `all_targets` no gene is suspected."
    )
    rows = [
        {
            "mask": mask,
            "targets": found["targets"],
            "suspected": len(found["suspected"]),
            "clearest gene": said["gene"],
            "tells": said["target"],
            "AUC": f"{said['auc']:.3f}",
            "AUC of the target's next gene": f"{said['next_gene_auc']:.3f}",
        }
        for mask, found in masks.items()
        if (said := found["clearest"])
    ]
    about = (
        "A target measured under a name that is not recognised escapes the mask. For each target, all measured genes "
        "were tried one by one in reference and validation cells: suspected is a gene that tells the target (area "
        "under the curve, AUC) where no other gene and no other target comes near. Weak or rare effects stay unseen. "
    )
    return [about + verdict, *([markdown(rows)] if rows else [])]


def _columns(metric: str) -> tuple[str, str, str]:
    return heading(metric), f"chance {metric}", f"99 % of {metric} gap"


def _row(of: Mapping[str, Any]) -> dict[str, str]:
    row = {"verdict": "at chance" if of["at_chance"] else "above chance"}
    for name in METRICS:
        found = of[name]
        texts = f"{found['found']:.3f}", f"{found['chance']:.3f}", f"{found['low']:+.3f} to {found['high']:+.3f}"
        row |= dict(zip(_columns(name), texts, strict=True))
    return row
