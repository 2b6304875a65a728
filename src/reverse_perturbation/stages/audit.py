"""Describe the prepared cells in numbers, plot rows and words."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from reverse_perturbation.config import Params
from reverse_perturbation.data.screen.contract import read_cells
from reverse_perturbation.prepare.audit import audit
from reverse_perturbation.report.audit import audit_page
from reverse_perturbation.stages.arguments import parser, run
from reverse_perturbation.storage import for_spreadsheets, write_json, write_text


def write_audit(args: argparse.Namespace, _: Params) -> None:
    """Write metrics, plot rows and report."""
    audited = audit(read_cells(args.cells))
    for name, rows in audited.plots.items():
        text = for_spreadsheets(rows).to_csv(index=False, float_format="%.6g", lineterminator="\n")
        write_text(Path(args.plots) / f"{name}.csv", text)
    write_text(args.report, audit_page(audited.metrics))
    write_json(args.metrics, audited.metrics)
    size, genes = audited.metrics["depth"], audited.metrics["expressed_genes"]
    print(
        f"audit: {size['p50']:,.0f} UMIs and {genes['p50']:,.0f} expressed genes in the median cell, "
        f"{audited.metrics['binning']['tied_share']:.1%} of the non-zero values tied -> {args.report}"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = parser(__doc__, "--cells")
    arguments.add_argument("--metrics", required=True, help="where to write the numbers, .json")
    arguments.add_argument("--plots", required=True, help="folder for the plot rows, .csv")
    arguments.add_argument("--report", required=True, help="where to write the report, .md")
    run(write_audit, arguments, argv)


if __name__ == "__main__":
    main()
