"""Divide the perturbed cells into reference, validation and query."""

import argparse
from collections.abc import Sequence

from reverse_perturbation.config import Params
from reverse_perturbation.data.contract import read_cells
from reverse_perturbation.data.split import split_cells
from reverse_perturbation.stages.arguments import parser, run
from reverse_perturbation.storage import write_text


def split(args: argparse.Namespace, params: Params) -> None:
    """Write the split as CSV."""
    cells = read_cells(args.cells)
    frame = split_cells(cells.obs, label_space=params.labels, **params.split.model_dump())
    write_text(args.output, frame.to_csv(index=False, lineterminator="\n"))
    sizes = frame["part"].value_counts()
    print(
        f"split: {frame['condition'].nunique()} conditions ({params.labels} labels), "
        + ", ".join(f"{sizes[part]:,} {part}" for part in ("reference", "validation", "query"))
        + " cells"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = parser(__doc__, "--cells")
    arguments.add_argument("--output", required=True, help="where to write the split, .csv")
    run(split, arguments, argv)


if __name__ == "__main__":
    main()
