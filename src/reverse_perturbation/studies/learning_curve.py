"""The report on learning curves: every model over the number of known cells, on the same queries."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from reverse_perturbation.report.markdown import markdown
from reverse_perturbation.report.report import about_the_models
from reverse_perturbation.report.tables import slice_of
from reverse_perturbation.runs import REFERENCE_BASELINE
from reverse_perturbation.studies.presets import Preset
from reverse_perturbation.studies.reports import FOLDER, MadeRow, made_by, save

# Model -> colour and words in the picture.
DRAWN = {
    "scgpt": ("#444444", "scGPT alone, mean of training seeds"),
    "scgpt_ensemble": ("#0072B2", "scGPT alone, training seeds averaged"),
    "fusion_ensemble": ("#D55E00", "scGPT fused with all baselines"),
    "mlp": ("#009E73", "neural network of one hidden layer"),
    REFERENCE_BASELINE: ("#CC79A7", "logistic regression"),
}


def write(preset: Preset, rows: Mapping[str, MadeRow], about: Mapping[str, Any], folder: Path = FOLDER) -> None:
    """Write the report and the picture beside it.

    Parameters
    ----------
    preset
        Its rows differ in ``split.known_fraction`` and have the same queries.
    rows
        What was made of it.
    about
        Provenance of the report.
    folder
        Where to write it.
    """
    first = next(iter(rows.values()))
    report = {
        "provenance": about,
        "screen": first.params.data.name,
        "chance": first.of_all_runs()[0]["chance"]["mrr"],
        "rows": {name: _figures(row) for name, row in rows.items()},
    }
    picture = folder / f"{preset.name}.png"
    draw(report).savefig(picture, dpi=150)
    parts = [
        f"# Learning curves: {report['screen']}",
        f"{slice_of(first.comparison['provenance'])}; training seeds {', '.join(map(str, first.params.seeds))}. A row "
        f"keeps a share of the cells outside the query, {preset.file}; the queries are the same in all of them. "
        f"{made_by(report, preset.overrides)}",
        f"![mrr over known cells]({picture.name})",
        f"mrr. {about_the_models(first.params.models)} The gap is to the strongest baseline, chosen in each row by "
        "cross-validation in its known cells, with its 95 % interval over cells.",
        markdown(main_table(report)),
    ]
    save(report, parts, folder)


def _figures(row: MadeRow) -> dict[str, Any]:
    comparison, cells = row.comparison, row.metrics("split")["cells"]
    best = comparison["strongest"]["baseline"]
    names = [*comparison["provenance"]["models"], *comparison["provenance"]["baselines"]]
    return {
        "known_cells": cells["reference"] + cells["validation"],
        "mrr": {name: comparison[name]["mrr"] for name in names},
        "strongest": best,
        "tests": {
            model: {key: tests[best][key] for key in ("gap", "low", "high", "finding")}
            for model, tests in comparison["tests"].items()
        },
    }


def main_table(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row a model and number of known cells, from the report's JSON."""
    return [
        {"known cells": f"{row['known_cells']:,}", "model": model, "mrr": row["mrr"][model]}
        | {"strongest baseline": row["strongest"], "its mrr": row["mrr"][row["strongest"]]}
        | {"gap": test["gap"], "95 % low": test["low"], "95 % high": test["high"], "finding": test["finding"]}
        for row in _in_order(report)
        for model, test in row["tests"].items()
    ]


def draw(report: Mapping[str, Any]) -> Figure:
    """Draw mrr over known cells, and below it the gap to the strongest baseline."""
    rows = _in_order(report)
    cells = [row["known_cells"] for row in rows]
    figure = Figure(figsize=(7.2, 6.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for name, (colour, words) in DRAWN.items():
        above.plot(cells, [row["mrr"][name] for row in rows], "o-", color=colour, label=words, markersize=4)
    above.axhline(report["chance"], color="0.6", linestyle=":", label="chance")
    above.set_ylabel("mrr")
    for offset, name in enumerate(name for name in DRAWN if name in rows[0]["tests"]):
        tests = [row["tests"][name] for row in rows]
        ends = [[test["gap"] - test["low"] for test in tests], [test["high"] - test["gap"] for test in tests]]
        beside = [n * 1.03 ** (offset - 1) for n in cells]  # so that intervals do not hide each other
        gaps = [test["gap"] for test in tests]
        below.errorbar(beside, gaps, ends, fmt="o-", color=DRAWN[name][0], markersize=4, linewidth=1.2)
    below.axhline(0, color="black", linewidth=1)
    below.set_ylabel("minus the strongest\nbaseline, 95 % interval")
    below.set_xlabel("known cells")
    below.set_xscale("log")
    below.set_xticks(cells, [f"{n:,}" for n in cells])
    below.minorticks_off()
    for axes in (above, below):
        axes.grid(color="0.9", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper left", frameon=False, ncols=2, fontsize=9)
    return figure


def _in_order(report: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return sorted(report["rows"].values(), key=lambda row: row["known_cells"])
