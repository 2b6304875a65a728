"""Divide the perturbed cells into reference, validation and query."""

import argparse
from collections.abc import Sequence

from reverse_perturbation.config import Params
from reverse_perturbation.data.screen.contract import read_cells
from reverse_perturbation.data.split import PARTS, split_cells
from reverse_perturbation.errors import InputError
from reverse_perturbation.prepare.duplicates import duplicate_shares
from reverse_perturbation.stages.arguments import parser, run
from reverse_perturbation.storage import write_json, write_text

LEAST_CONDITIONS = 2


def split(args: argparse.Namespace, params: Params) -> None:
    """Write the split as CSV."""
    adata = read_cells(args.cells)
    frame = split_cells(adata.obs, label_space=params.labels, **params.split.model_dump(exclude={"max_duplicates"}))
    if frame["condition"].nunique() < LEAST_CONDITIONS:
        raise InputError(
            f"{args.cells}: one condition is left, {frame['condition'].iloc[0]!r}, and there is nothing to tell apart; "
            f"add conditions, or lower split.min_cells={params.split.min_cells}"
        )
    rows = adata.obs_names.get_indexer(frame["cell"])
    shares = duplicate_shares(adata.layers["counts"][rows], frame["part"].to_numpy(dtype=object))
    share = shares["query"]
    if share > params.split.max_duplicates:
        raise InputError(
            f"{args.cells}: {share:.1%} of the query cells have exactly the counts of a reference or validation cell, "
            f"split.max_duplicates allows {params.split.max_duplicates:.1%}; remove the copies or raise it"
        )
    legacy = adata.obs.loc[~adata.obs["control"].astype(bool), "condition"].astype(str)
    taken = legacy.index.isin(frame["cell"])
    write_json(
        args.metrics,
        {
            "cells": frame["part"].value_counts().to_dict(),
            "cells_left_out": int((~taken).sum()),
            "conditions": int(frame["condition"].nunique()),
            "legacy_conditions_left_out": int(legacy.nunique() - legacy[taken].nunique()),
            "duplicated_queries": share,
            "duplicated_validation": shares["validation"],
        },
    )
    write_text(args.output, frame.to_csv(index=False, lineterminator="\n"))
    sizes = frame["part"].value_counts()
    print(
        f"split: {frame['condition'].nunique()} conditions ({params.labels} labels), "
        + ", ".join(f"{sizes[part]:,} {part}" for part in PARTS)
        + " cells"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = parser(__doc__, "--cells")
    arguments.add_argument("--output", required=True, help="where to write the split, .csv")
    arguments.add_argument("--metrics", required=True, help="where to write sizes and duplicates, .json")
    run(split, arguments, argv)


if __name__ == "__main__":
    main()
