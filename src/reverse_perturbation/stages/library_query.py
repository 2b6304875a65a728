"""Rank with every library, similarity, embedding and query, and choose a library for each use on validation."""

import argparse
from collections.abc import Sequence

import pandas as pd

from reverse_perturbation.comparison.grid import grid, table
from reverse_perturbation.config import Params
from reverse_perturbation.report.library_query import library_query as write_report
from reverse_perturbation.retrieval.evaluate import Evaluator
from reverse_perturbation.retrieval.predictions import Predictions
from reverse_perturbation.runs import Run, all_runs
from reverse_perturbation.sections import FITS
from reverse_perturbation.stages.arguments import parser, run
from reverse_perturbation.storage import write_text


def library_query(args: argparse.Namespace, params: Params) -> None:
    """Write the grid and the report."""
    evaluator = Evaluator.read(args.cells, args.split, params)
    runs = all_runs(params)
    tables = [_grid_of_model(of_model, args.predictions, evaluator, params) for of_model in runs.values()]
    rows = pd.concat([of_model.assign(model=model) for model, of_model in zip(runs, tables, strict=True)])
    rows = rows.reset_index(drop=True).round(6)  # whoever reads the file chooses by the same numbers
    rows = rows[["model", *rows.columns.drop("model")]]
    write_text(args.grid, rows.to_csv(index=False, lineterminator="\n"))
    write_text(args.report, write_report(rows, params))
    print(f"library_query: {len(rows):,} settings of {len(runs)} models in {args.grid}; the choice in {args.report}")


def _grid_of_model(runs: list[Run], folder: str, evaluator: Evaluator, params: Params) -> pd.DataFrame:
    """Evaluate the selection fits on validation, with libraries of reference cells, and the final fits on the query."""
    config = params.library_query
    validation, query = [], []
    for each in runs:
        selection, final = (Predictions.load(each.predictions(folder, fit)) for fit in FITS)
        of_validation = grid(
            evaluator,
            selection,
            [config.validation_cells_per_query],
            library_parts=("reference",),
            query_part="validation",
            spaces=[params.labels],
        )
        validation.append(list(of_validation))
        query.append(list(grid(evaluator, final, config.cells_per_query)))
    parts = {"validation": validation, "query": query}
    return pd.concat([table(of_seeds, config).assign(part=part) for part, of_seeds in parts.items()])


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = parser(__doc__, "--cells", "--split")
    arguments.add_argument("--predictions", required=True, help="folder of all predictions")
    arguments.add_argument("--grid", required=True, help="where to write every setting, .csv")
    arguments.add_argument("--report", required=True, help="where to write the report, .md")
    run(library_query, arguments, argv)


if __name__ == "__main__":
    main()
