"""Write the report, its pictures, and the rows DVC plots."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reverse_perturbation.comparison.compare import Result
from reverse_perturbation.config import Params
from reverse_perturbation.errors import InputError
from reverse_perturbation.metrics.confidence import coverage_curve
from reverse_perturbation.metrics.registry import hit_curve, per_query
from reverse_perturbation.report import analysis, plots
from reverse_perturbation.report.probe import cells_section, probe_section
from reverse_perturbation.report.report import report as write_report
from reverse_perturbation.report.tables import slice_of
from reverse_perturbation.retrieval.evaluate import Scores
from reverse_perturbation.runs import REFERENCE_BASELINE, all_runs, describe_baselines, plotted, seeded_runs
from reverse_perturbation.stages.arguments import parser, run
from reverse_perturbation.storage import keep_only, read_json, write_text


def report(args: argparse.Namespace, params: Params) -> None:
    """Write everything a reader looks at."""
    runs = [each for of_model in all_runs(params).values() for each in of_model]
    results = {each: Result.load(each, args.metrics, args.scores) for each in runs}
    scores = {each: result.scores for each, result in results.items()}
    models = plotted(params.models)
    grid = _read_grid(Path(args.grid))
    comparison = _read(args.metrics, "comparison", "compare")
    split, probe = _read(args.metrics, "split", "split"), _read(args.metrics, "probe", "probe")
    tables = analysis.Tables.load(args.analysis, _read(args.metrics, "analysis", "analysis"), models)
    title = slice_of(comparison["provenance"])
    folder = Path(args.plots)

    hits = pd.concat(
        hit_curve(of_run.scores, of_run.labels, of_run.conditions).assign(model=each.name)
        for each, of_run in scores.items()
    )
    coverage = pd.concat(
        coverage_curve(of_run.scores, per_query("exact_hit@1", of_run.scores, of_run.labels, of_run.conditions)).assign(
            run=each.name, model=each.model
        )
        for each, of_run in scores.items()
    )
    write_text(folder / "hit_at_k.csv", hits.to_csv(index=False, float_format="%.6f", lineterminator="\n"))
    rows = coverage.drop(columns="model").rename(columns={"run": "model"})
    write_text(folder / "coverage.csv", rows.to_csv(index=False, float_format="%.6f", lineterminator="\n"))
    first, logreg = runs[0], all_runs(params)[REFERENCE_BASELINE][0]
    predicted = {each.name: _predicted(scores[each]) for each in (first, logreg)}
    write_text(folder / "confusion.csv", plots.page_csv(predicted[first.name]))

    conditions = sorted(scores[first].conditions)
    plots.hit_curves(hits, len(conditions), folder / "hit_at_k.png", title)
    mean = coverage.groupby(["model", "coverage"], sort=False)["accuracy"].mean().reset_index()
    plots.coverage_curves(mean[mean["model"].isin(models)], folder / "coverage.png", title)
    shares = {name: _shares(frame, conditions) for name, frame in predicted.items()}
    plots.confusion(shares, folder / "confusion.png", title)
    trained = seeded_runs(params)[params.encoder]
    keep_only(each.curves(args.training) for each in trained)
    curves = {each.name: _curves(each.curves(args.training)) for each in trained}
    write_text(folder / "training.csv", _losses(curves).to_csv(index=False, float_format="%.6f", lineterminator="\n"))
    plots.training_curves({name: curve for name, curve in curves.items() if len(curve)}, folder / "training.png", title)
    analysis.draw(tables, 1 / len(conditions), folder, title)
    pictures = Path(os.path.relpath(folder, Path(args.output).parent)).as_posix()
    text = write_report(
        comparison,
        [result.metrics for result in results.values()],
        describe_baselines(params),
        grid,
        tables,
        params.analysis.similar,
        pictures,
    )
    write_text(args.output, f"{text}\n{cells_section(split)}\n\n{probe_section(probe)}")
    print(f"report: {args.output}")


def _predicted(scores: Scores) -> pd.DataFrame:
    first = scores.conditions[np.argmax(scores.scores, axis=1)]
    return pd.DataFrame({"actual": scores.labels, "predicted": first})


def _shares(predicted: pd.DataFrame, conditions: list[str]) -> pd.DataFrame:
    """Return the share of each prediction by true condition, over all conditions, so that models can be compared."""
    table = pd.crosstab(predicted["actual"], predicted["predicted"], normalize="index")
    return table.reindex(index=conditions, columns=conditions, fill_value=0.0)


def _read(folder: str, name: str, stage: str) -> dict[str, Any]:
    path = Path(folder) / f"{name}.json"
    if not path.exists():
        raise InputError(f"{path}: no such file; run `dvc repro {stage}` to make it")
    content: dict[str, Any] = read_json(path)
    return content


def _read_grid(path: Path) -> pd.DataFrame:
    if not path.exists():
        raise InputError(f"{path}: no such file; run `dvc repro library_query` to make it")
    return pd.read_csv(path)


def _curves(folder: Path) -> pd.DataFrame:
    """Read what DVCLive wrote: one file a metric, columns step, which is the epoch, and the metric."""
    files = sorted((folder / "plots" / "metrics").glob("*.tsv"))
    columns = {file.stem: pd.read_csv(file, sep="\t").set_index("step")[file.stem] for file in files}
    return pd.DataFrame(columns)


def _losses(curves: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Lay the losses of all runs out in rows, for one DVC plot: step, model, part (train or validation), loss."""
    losses = {"train_loss": "train", "validation_loss": "validation"}
    # A model that is not trained has no curves; its columns are there and empty.
    tables = [curve.reindex(columns=[*losses]).assign(model=name) for name, curve in curves.items()]
    wide = pd.concat(tables).rename_axis("step").reset_index().rename(columns=losses)
    rows = wide.melt(["step", "model"], [*losses.values()], "part", "loss")
    return rows.dropna()


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = parser(__doc__)
    arguments.add_argument("--metrics", required=True, help="folder of the metrics files")
    arguments.add_argument("--scores", required=True, help="folder of the score files")
    arguments.add_argument("--grid", required=True, help="every library and query of every model, .csv")
    arguments.add_argument("--analysis", required=True, help="folder of the tables of the stage analysis")
    arguments.add_argument("--training", required=True, help="folder of the training curves")
    arguments.add_argument("--plots", required=True, help="folder for pictures and plot rows")
    arguments.add_argument("--output", required=True, help="where to write the report, .md")
    run(report, arguments, argv)


if __name__ == "__main__":
    main()
