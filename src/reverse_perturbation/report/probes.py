"""The report's section on the leak probes."""

from collections.abc import Mapping
from typing import Any

from reverse_perturbation.report.tables import markdown

SEES = {
    "targets": "counts of the target genes",
    "zeros": "which target genes are above zero",
    "depth": "library size, number of expressed genes",
    "gem_group": "gem group",
}


def probes_section(found: Mapping[str, Any]) -> str:
    """Write the section, from what the stage probe wrote."""
    leaking = ", ".join(found["leaks"])
    rows = [
        {"mask": mask, "the probe sees": SEES[name]} | (_row(of) if of else {"verdict": "absent from the data"})
        for mask, probes in found["masks"].items()
        for name, of in probes.items()
    ]
    columns = ["mask", "the probe sees", "exact_hit@1", "chance@1", "mrr", "chance mrr", "99 % of mrr gap", "verdict"]
    parts = [
        "## Leak probes",
        f"**Leak: {leaking} above chance.**" if leaking else "Under `all_targets` the target genes tell nothing.",
        "Logistic regressions on reference and validation cells that see no other expression. Chance ranks the "
        "conditions by their frequency. What library size and gem group tell is the part of any model's accuracy "
        "that is not expression.",
        markdown([{column: row.get(column, "-") for column in columns} for row in rows]),
    ]
    return "\n\n".join(parts) + "\n"


def _row(of: Mapping[str, Any]) -> dict[str, str]:
    hit, mrr = of["exact_hit@1"], of["mrr"]
    return {
        "exact_hit@1": f"{hit['found']:.3f}",
        "chance@1": f"{hit['chance']:.3f}",
        "mrr": f"{mrr['found']:.3f}",
        "chance mrr": f"{mrr['chance']:.3f}",
        "99 % of mrr gap": f"{mrr['low']:+.3f} to {mrr['high']:+.3f}",
        "verdict": "at chance" if of["at_chance"] else "above chance",
    }
