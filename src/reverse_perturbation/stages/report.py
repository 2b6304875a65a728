"""Write the report, its pictures, and the rows DVC plots."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reverse_perturbation.config import Params
from reverse_perturbation.errors import InputError
from reverse_perturbation.report import analysis, plots
from reverse_perturbation.report.probes import cells_section, probes_section
from reverse_perturbation.report.report import report as write_report
from reverse_perturbation.report.tables import slice_of
from reverse_perturbation.retrieval.compare import Run
from reverse_perturbation.retrieval.confidence import coverage_curve
from reverse_perturbation.retrieval.evaluate import Scores
from reverse_perturbation.retrieval.metrics import hit_curve, per_query
from reverse_perturbation.stages.arguments import parser, run
from reverse_perturbation.storage import read_json, write_text


def report(args: argparse.Namespace, params: Params) -> None:
    """Write everything a reader looks at."""
    trained = [f"{model}-{seed}" for model in params.models for seed in params.seeds]
    names = trained + [f"{name}-{params.split.seed}" for name in args.baselines]
    loaded = {name: Run.load(name, args.metrics, args.scores) for name in names}
    runs = {name: run.metrics for name, run in loaded.items()}
    scores = {name: run.scores for name, run in loaded.items()}
    grid = _read_grid(Path(args.grid))
    comparison = _read(args.metrics, "comparison", "compare")
    tables = analysis.Tables.load(args.analysis, _read(args.metrics, "analysis", "analysis"))
    title = slice_of(comparison["provenance"])
    folder = Path(args.plots)

    hits = pd.concat(
        hit_curve(found.scores, found.labels, found.conditions).assign(model=name) for name, found in scores.items()
    )
    coverage = pd.concat(
        coverage_curve(found.scores, per_query("exact_hit@1", found.scores, found.labels, found.conditions)).assign(
            model=name
        )
        for name, found in scores.items()
    )
    write_text(folder / "hit_at_k.csv", hits.to_csv(index=False, float_format="%.6f", lineterminator="\n"))
    write_text(folder / "coverage.csv", coverage.to_csv(index=False, float_format="%.6f", lineterminator="\n"))
    answered = {name: _answers(scores[name]) for name in (names[0], f"logreg-{params.split.seed}")}
    write_text(folder / "confusion.csv", answered[names[0]].to_csv(index=False, lineterminator="\n"))

    plots.hit_curves(hits, len(scores[names[0]].conditions), folder / "hit_at_k.png", title)
    plots.coverage_curves(_overlaid(coverage), folder / "coverage.png", title)
    conditions = sorted(scores[names[0]].conditions)
    shares = {name: _shares(frame, conditions) for name, frame in answered.items()}
    plots.confusion(shares, folder / "confusion.png", title)
    curves = {name: _curves(Path(args.training) / name) for name in trained}
    write_text(folder / "training.csv", _losses(curves).to_csv(index=False, float_format="%.6f", lineterminator="\n"))
    plots.training_curves({name: curve for name, curve in curves.items() if len(curve)}, folder / "training.png", title)
    analysis.draw(tables, 1 / len(conditions), folder, title)
    pictures = Path(os.path.relpath(folder, Path(args.output).parent)).as_posix()
    text = write_report(comparison, runs, grid, tables, params.analysis.similar, pictures)
    cells = cells_section(_read(args.metrics, "split", "split"))
    probes = probes_section(_read(args.metrics, "probes", "probe"))
    write_text(args.output, f"{text}\n{cells}\n\n{probes}")
    print(f"report: {args.output}")


def _answers(scores: Scores) -> pd.DataFrame:
    first = scores.conditions[np.argmax(scores.scores, axis=1)]
    return pd.DataFrame({"actual": scores.labels, "predicted": first})


def _shares(answers: pd.DataFrame, conditions: list[str]) -> pd.DataFrame:
    """Lay the answers out over all conditions, so that the tables of several models can stand side by side."""
    table = pd.crosstab(answers["actual"], answers["predicted"], normalize="index")
    return table.reindex(index=conditions, columns=conditions, fill_value=0.0)


def _overlaid(coverage: pd.DataFrame) -> pd.DataFrame:
    """Average the curves of a model over its training seeds and keep those that are compared."""
    model = coverage["model"].str.rsplit("-", n=1).str[0]
    mean = coverage.assign(model=model).groupby(["model", "coverage"], sort=False)["accuracy"].mean().reset_index()
    return mean[mean["model"].isin(analysis.OVERLAID)]


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
    found = [curve.reindex(columns=[*losses]).assign(model=name) for name, curve in curves.items()]
    wide = pd.concat(found).rename_axis("step").reset_index().rename(columns=losses)
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
    arguments.add_argument("--baselines", required=True, nargs="+", help="names of the baselines")
    arguments.add_argument("--plots", required=True, help="folder for pictures and plot rows")
    arguments.add_argument("--output", required=True, help="where to write the report, .md")
    run(report, arguments, argv)


if __name__ == "__main__":
    main()
