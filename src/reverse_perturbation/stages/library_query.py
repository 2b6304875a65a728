"""Rank with every library, similarity, embedding and query, and choose a library for each use on validation."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from reverse_perturbation.config import Params
from reverse_perturbation.report.library_query import library_query as write_report
from reverse_perturbation.retrieval.evaluate import Evaluator
from reverse_perturbation.retrieval.grid import grid, table
from reverse_perturbation.retrieval.outputs import Outputs
from reverse_perturbation.stages.arguments import parser, run
from reverse_perturbation.stages.evaluator import evaluator_of
from reverse_perturbation.storage import write_text


def library_query(args: argparse.Namespace, params: Params) -> None:
    """Write the grid and the report."""
    evaluator = evaluator_of(args.cells, args.split, params)
    runs = {model: [f"{model}-{seed}" for seed in params.seeds] for model in params.models}
    runs |= {name: [name] for name in args.baselines}
    found = [
        _of_model([Path(args.outputs) / name for name in names], evaluator, params).assign(model=model)
        for model, names in runs.items()
    ]
    rows = pd.concat(found, ignore_index=True).round(4)  # so that who reads the file chooses as is chosen here
    rows = rows[["model", *rows.columns.drop("model")]]
    write_text(args.grid, rows.to_csv(index=False, lineterminator="\n"))
    write_text(args.report, write_report(rows, params))
    print(f"library_query: {len(rows):,} settings of {len(runs)} models in {args.grid}; the choice in {args.report}")


def _of_model(folders: list[Path], evaluator: Evaluator, params: Params) -> pd.DataFrame:
    """Ask the selection fits about validation, libraries of reference cells, and the final fits about the query."""
    config = params.library_query
    held_out, asked = [], []
    for folder in folders:
        selection = Outputs.load(folder / "selection.npz")
        of_validation = grid(
            evaluator,
            selection,
            [config.validation_cells],
            library_parts=("reference",),
            query_part="validation",
            spaces=[params.labels],
        )
        held_out.append(list(of_validation))
        asked.append(list(grid(evaluator, Outputs.load(folder / "final.npz"), config.cells)))
    parts = {"validation": held_out, "query": asked}
    return pd.concat([table(of_seeds, config).assign(part=part) for part, of_seeds in parts.items()])


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = parser(__doc__, "--cells", "--split")
    arguments.add_argument("--outputs", required=True, help="folder of the models' outputs")
    arguments.add_argument("--baselines", required=True, nargs="+", help="names of the baselines")
    arguments.add_argument("--grid", required=True, help="where to write every setting, .csv")
    arguments.add_argument("--report", required=True, help="where to write the report, .md")
    run(library_query, arguments, argv)


if __name__ == "__main__":
    main()
