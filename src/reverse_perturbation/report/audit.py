"""The audit of the data as a page to read."""

from collections.abc import Mapping
from typing import Any

from reverse_perturbation.report.markdown import escaped, markdown


def audit_page(audit: Mapping[str, Any]) -> str:
    """Write the metrics of :func:`reverse_perturbation.prepare.audit.audit` out in words and tables.

    Returns
    -------
    str
        Markdown.
    """
    parts = ["# Audit of the data", _origin(audit), "## Are these counts?", _scale(audit), "## Depth", _depth(audit)]
    parts += ["## Conditions", _conditions(audit), "## Targets", _targets(audit), "## Binning", _binning(audit)]
    return "\n\n".join(parts) + "\n"


def _origin(audit: Mapping[str, Any]) -> str:
    source = audit["source"]
    size = (
        f"{audit['cells']:,} cells, {audit['control_cells']:,} of them control, x {audit['genes']:,} genes, "
        f"{audit['detected_genes']:,} of them detected at all."
    )
    if source["kind"] == "simulated":
        return f"**Simulated data; nothing here says anything about biology.** ({source['description']})\n\n{size}"
    described = f" The file says of itself: {escaped(source['description'])}." if source.get("description") else ""
    file = source["file"].replace("`", "'")
    return f"Read from `{file}`.{described}\n\n{size}"


def _scale(audit: Mapping[str, Any]) -> str:
    counts, source = audit["counts"], audit["source"]
    lines = [
        f'- {counts["integer_share"]:.1%} of the non-zero values of `layers["counts"]` are whole numbers and none is '
        "negative; a file in which that is not so is refused.",
        f"- {counts['ones_share']:.1%} of them are 1, their mean is {counts['nonzero_mean']:.2f}, the largest is "
        f"{counts['max']:,.0f}.",
        f"- Depths vary by {audit['depth']['variation']:.0%} (standard deviation / mean); of normalised "
        "cells they would all be equal.",
    ]
    lines += [f"- **Warning:** {warning}." for warning in source.get("depth_warnings", [])]
    if "layers" in source:
        layers = ", ".join(map(escaped, source["layers"]))
        lines.append(f"- Layers of the file: {layers}; counts stored as {source['counts_dtype']}.")
    if "x_log1p_share" in source:
        lines.append(
            f"- X is not used. In {source['x_log1p_share']:.1%} of its first {source['x_cells']:,} cells it is "
            "log1p of the counts times one factor a cell, which scales the library to "
            f"{source['x_scaled_to']:,.0f} (median)."
        )
    elif "x_cells" in source:
        lines.append(
            f"- X is not used, and is no log1p of the counts: {source['x_integer_share']:.1%} of its non-zero "
            f"values are whole numbers, the largest is {source['x_max']:g}."
        )
    return "\n".join(lines)


def _depth(audit: Mapping[str, Any]) -> str:
    rows = [
        {"a cell's": name} | {place: f"{audit[key][place]:,.0f}" for place in ("p5", "p50", "p95")}
        for name, key in (
            ("depth", "depth"),
            ("UMIs in this file", "umis_in_file"),
            ("expressed genes", "expressed_genes"),
        )
    ]
    same = audit["identical_cells"]
    repeated = (
        f"{same['cells']:,} cells have exactly the counts of another; {same['vectors_in_several_conditions']:,} of "
        f"these {same['vectors']:,} patterns occur in more than one condition, where no model can tell them apart."
        if same["cells"]
        else "No two cells have the same counts."
    )
    return (
        f"{markdown(rows)}\n\n{audit['counts']['nonzero_share']:.1%} of the matrix is not zero. "
        f"{audit['empty_cells']:,} cells have no count at all. {repeated}"
    )


def _conditions(audit: Mapping[str, Any]) -> str:
    conditions, twins = audit["conditions"], audit["twins"]
    doubled = (
        f"Twins: {twins['perturbations']} perturbations come under {twins['labels']} labels, such as `A+ctrl` and "
        f"`ctrl+A`, with {twins['cells_share']:.1%} of the perturbed cells. In legacy labels no model can tell "
        "twins apart."
        if twins["labels"]
        else "No perturbation comes under two labels."
    )
    return (
        f"{conditions['legacy']} perturbed labels, {conditions['canonical']} perturbations. Cells a label: "
        f"{conditions['cells_min']:,} to {conditions['cells_max']:,}, median {conditions['cells_median']:,.0f}.\n\n"
        f"{doubled}"
    )


def _targets(audit: Mapping[str, Any]) -> str:
    targets = audit["targets"]
    renamed = ", ".join(f"{escaped(old)} (as {escaped(new)})" for old, new in targets["measured_under_alias"].items())
    return (
        f"The labels name {targets['named']} genes. Measured under that name: {targets['measured']}; under another: "
        f"{renamed or 'none'}; not measured: {', '.join(map(escaped, targets['not_measured'])) or 'none'}.\n\n"
        "The mask hides the measured ones; of the others there is nothing to hide."
    )


def _binning(audit: Mapping[str, Any]) -> str:
    bins = audit["binning"]
    return (
        f"scGPT sorts a cell's non-zero log1p values into {bins['bins'] - 1} bins by their own quantiles. "
        f"{bins['tied_share']:.1%} of the values equal another of the same cell, and for {bins['drawn_share']:.1%} "
        "scGPT's own code draws the bin at random among several: in the median cell a count of 1 lands anywhere in "
        f"bins {bins['count_of_one_low']:.0f} to {bins['count_of_one_high']:.0f}. Two passes over the same cell give "
        f"{bins['same_bin_twice']:.1%} of the values the same bin. The fullest bin holds "
        f"{bins['fullest_bin_share']:.1%} of the values; evenly filled ones would hold {1 / (bins['bins'] - 1):.1%}."
    )
