"""Plots of the report, drawn from rows that DVC can plot too."""

import html
import textwrap
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from reverse_perturbation.storage import for_spreadsheets, write_atomically

mpl.use("Agg")
MAX_LABELS = 60  # more condition names than this cannot be read on one axis
FEWEST = 5  # conditions, below which their mean is not drawn


def page_csv(rows: pd.DataFrame) -> str:
    """Return plot rows with texts of the data as CSV: `dvc plots` copies them as they are into a script of its page."""
    shown = for_spreadsheets(rows)
    texts = shown.select_dtypes(["object", "string"]).columns
    escaped = shown.assign(**{name: shown[name].map(partial(html.escape, quote=False)) for name in texts})
    return escaped.to_csv(index=False, lineterminator="\n")


def hit_curves(rows: pd.DataFrame, n_conditions: int, path: str | Path, title: str) -> None:
    """Draw hit@k over k; rows have model, k, exact_hit, relevant_hit."""
    figure, axes = _figure(2, title, sharey=True)
    for axis, column, name in zip(axes, ("exact_hit", "relevant_hit"), ("exact", "shares a gene"), strict=True):
        axis.set_prop_cycle(color=mpl.color_sequences["tab20"])  # more models than the ten colours of the default
        for model, curve in rows.groupby("model", sort=False):
            axis.plot(curve["k"], curve[column], marker=".", label=model)
        axis.set(xlabel="k", ylabel="hit@k" if axis is axes[0] else "", title=name)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    k = np.arange(1, rows["k"].max() + 1)
    axes[0].plot(k, k / n_conditions, color="0.6", linestyle=":", label="chance (left)")
    axes[0].set_ylim(bottom=0)
    _legend_beside(figure, axes[0].get_legend_handles_labels()[0])
    _save(figure, path)


def coverage_curves(rows: pd.DataFrame, path: str | Path, title: str) -> None:
    """Draw accuracy over the share of most confident queries; rows have model, coverage, accuracy."""
    figure, axes = _figure(1, title, width=5.6)
    for model, curve in rows.groupby("model", sort=False):
        axes[0].plot(curve["coverage"], curve["accuracy"], marker=".", label=model)
    axes[0].set(xlabel="coverage: share of queries, most confident first", ylabel="exact_hit@1")
    axes[0].set_ylim(bottom=0)
    _legend_beside(figure, axes[0].get_legend_handles_labels()[0])
    _save(figure, path)


def reliability(rows: pd.DataFrame, path: str | Path, title: str) -> None:
    """Draw accuracy over predicted probability, before and after temperature scaling.

    Rows have model, when (before, after), confidence, accuracy, queries; the size of a dot is the share of queries.
    """
    figure, axes = _figure(2, title, sharey=True)
    for axis, when in zip(axes, ("before", "after"), strict=True):
        axis.plot([0, 1], [0, 1], color="0.6", linestyle=":", label="calibrated")
        for model, bins in rows[rows["when"] == when].groupby("model", sort=False):
            (line,) = axis.plot(bins["confidence"], bins["accuracy"], linewidth=1, label=model)
            size = 200 * bins["queries"] / bins["queries"].sum()
            axis.scatter(bins["confidence"], bins["accuracy"], s=size, color=line.get_color(), alpha=0.6)
        axis.set(
            xlabel="probability of the first-ranked condition",
            title=f"{when} temperature scaling",
            xlim=(0, 1),
            ylim=(0, 1),
        )
    axes[0].set_ylabel("share that is correct")
    _legend_beside(figure, axes[0].get_legend_handles_labels()[0])
    _save(figure, path)


def error_classes(rows: pd.DataFrame, path: str | Path, title: str) -> None:
    """Draw the relation of predictions to the truth, a bar a model; rows have model, class, share, in order."""
    table = rows.pivot_table(index="model", columns="class", values="share", sort=False)
    hues = {"right": "#1b7837", "twin": "#7fbf7b", "shares a gene": "#fdb863", "similar profile": "#b2abd2"}
    figure, axes = _figure(1, title, width=6.4, height=1.6 + 0.3 * len(table))
    left = np.zeros(len(table))
    for name in table.columns:
        axes[0].barh(range(len(table)), table[name], left=left, color=hues.get(name, "0.8"), label=name)
        left += table[name].to_numpy()
    axes[0].set_yticks(range(len(table)), table.index)
    axes[0].invert_yaxis()
    axes[0].set(xlabel="share of the queries", xlim=(0, 1))
    _legend_beside(figure, axes[0].get_legend_handles_labels()[0])
    _save(figure, path)


def by_effect(rows: pd.DataFrame, path: str | Path, title: str) -> None:
    """Draw each condition's hit@1 over the strength of its effect, a panel a model.

    Rows have model, condition, e_distance, reference_cells, genes, exact_hit@1.
    """
    models = list(dict.fromkeys(rows["model"]))
    figure, axes = _figure(len(models), title, width=3.2, sharey=True)
    for axis, model in zip(axes, models, strict=True):
        of_model = rows[rows["model"] == model]
        for genes, name in ((1, "single"), (2, "double")):
            points = of_model[of_model["genes"] == genes]
            axis.scatter(
                points["e_distance"], points["exact_hit@1"], s=points["reference_cells"] / 4, alpha=0.6, label=name
            )
        axis.set_xscale("symlog", linthresh=1)
        axis.set(xlabel="E-distance to control", title=model, ylim=(-0.03, 1.03))
    axes[0].set_ylabel("exact_hit@1 of the condition")
    _legend_beside(figure, axes[0].get_legend_handles_labels()[0])
    _save(figure, path)


def reach(
    rows: pd.DataFrame, beside: pd.DataFrame, chance: float, models: Sequence[str], path: str | Path, title: str
) -> None:
    """Draw how well half of the cells retrieves means of cells of the other half, and the models beside it.

    Rows have condition, cells_per_query, exact_hit@1; one thin line a condition, in bold the mean of those with enough
    cells.
    ``beside`` has cells_per_query, conditions, and a column of exact_hit@1 a curve, the ceilings among them.
    """
    figure, axes = _figure(2, title, sharey=True)
    numbered = rows[rows["cells_per_query"] != "half"].assign(cells=lambda curve: curve["cells_per_query"].astype(int))
    for _, curve in numbered.groupby("condition"):
        axes[0].plot(curve["cells"], curve["exact_hit@1"], color="C0", alpha=0.15, linewidth=0.8)
    # The same conditions at each number of cells, or the mean would move with who is left.
    sizes = numbered.groupby("cells")["condition"].nunique()
    for least, style in zip(sorted(set(sizes), reverse=True)[:2], ("-", "--"), strict=False):
        members = numbered.loc[numbered["cells"].isin(sizes.index[sizes == least]), "condition"].unique()
        kept = numbered[numbered["condition"].isin(members) & numbered["cells"].isin(sizes.index[sizes >= least])]
        mean = kept.groupby("cells")["exact_hit@1"].mean()
        axes[0].plot(mean.index, mean, color="C0", marker=".", linestyle=style, label=f"mean of {least} conditions")
    _sizes(axes[0], {size: str(size) for size in sorted(set(numbered["cells"]))}, chance)
    axes[0].set(ylabel="exact_hit@1", title="split half", ylim=(-0.03, 1.03))
    axes[0].legend(frameon=False, fontsize=8)
    shown = beside[beside["conditions"] >= min(FEWEST, beside["conditions"].max())].set_index("cells_per_query")
    for name in shown.columns.drop("conditions"):
        colour, style = _curve(name, models)
        axes[1].plot(shown.index, shown[name], marker=".", label=name, color=colour, linestyle=style)
    _sizes(axes[1], {size: f"{size}\n({count})" for size, count in shown["conditions"].items()}, chance)
    axes[1].set(xlabel="cells averaged (conditions)", title="models, over the same conditions")
    _legend_beside(figure, axes[1].get_legend_handles_labels()[0])
    _save(figure, path)


def _sizes(axis: Axes, ticks: Mapping[int, str], chance: float) -> None:
    """Set up an axis of numbers of cells."""
    axis.axhline(chance, color="0.6", linestyle=":", label="chance")
    axis.set_xscale("log")
    axis.set_xticks([*ticks], [*ticks.values()])
    axis.minorticks_off()
    axis.set_xlabel("cells averaged")


def _curve(name: str, models: Sequence[str]) -> tuple[str, str]:
    """Return colour and style: ceilings are grey, a model's other ranking has its colour and is dashed."""
    model, _, other = name.partition(", ")
    if model in models:  # the same colours as in plots that draw the models in order
        return f"C{models.index(model)}", "--" if other else "-"
    return "0.3", "-" if name == "split half" else "-."


def confusion(matrices: Mapping[str, pd.DataFrame], path: str | Path, title: str) -> None:
    """Draw, for each model, the share of each condition's queries (rows) predicted as each condition (columns).

    The tables have the same rows and columns; the first picture alone names the rows.
    """
    figure, axes = _figure(len(matrices), title, width=5.2, height=5.8)
    for axis, (model, matrix) in zip(axes, matrices.items(), strict=True):
        image = axis.imshow(matrix.to_numpy(), cmap="magma_r", vmin=0, vmax=1, interpolation="nearest")
        first = axis is axes[0]
        if len(matrix) <= MAX_LABELS:
            axis.set(title=model, xlabel="predicted", ylabel="true" if first else "")
            axis.set_xticks(range(len(matrix)), matrix.columns, rotation=90, fontsize=6, parse_math=False)
            axis.set_yticks(
                range(len(matrix)) if first else [], matrix.index if first else [], fontsize=6, parse_math=False
            )
        else:
            order = "condition, in alphabetical order"
            axis.set(title=model, xlabel=f"predicted {order}", ylabel=f"true {order}" if first else "")
    figure.colorbar(image, ax=axes, shrink=0.7, label="share of the condition's queries")
    _save(figure, path)


def training_curves(runs: Mapping[str, pd.DataFrame], path: str | Path, title: str) -> None:
    """Draw losses, validation metrics and learning rates over epochs; one colour a model and seed."""
    panels = (
        ("cross-entropy, nats", {"train_loss": "train", "validation_loss": "validation"}),
        ("on validation", {"exact_hit_at_1": "exact_hit@1", "mrr": "mrr"}),
        ("learning rate at epoch's end", {"backbone_learning_rate": "backbone", "head_learning_rate": "head"}),
    )
    figure, axes = _figure(3, title)
    colours = {name: f"C{number}" for number, name in enumerate(runs)}
    for axis, (ylabel, columns) in zip(axes, panels, strict=True):
        styles = dict(zip(columns, ("--", "-"), strict=True))
        for name, run in runs.items():
            for column in run.columns.intersection(list(styles)):  # without a classifier there is no validation loss
                style = styles[column]
                # Dots, so that a run of one epoch is seen as well.
                axis.plot(run.index, run[column], color=colours[name], linestyle=style, marker=".", markersize=4)
        axis.set(xlabel="epoch", ylabel=ylabel)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        lines = [Line2D([], [], color="0.3", linestyle=style, label=columns[c]) for c, style in styles.items()]
        axis.legend(handles=lines, frameon=False)
    axes[1].set_ylim(bottom=0)
    _legend_beside(figure, [Line2D([], [], color=colour, label=name) for name, colour in colours.items()])
    _save(figure, path)


def _figure(
    columns: int, title: str, width: float = 4.4, height: float = 3.8, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """Make a row of panels, each of about this size in inches."""
    figure = Figure(figsize=(width * columns + 0.6, height), layout="constrained")
    characters = int(figure.get_figwidth() * 14)  # of 9 points, to the inch, with some room to spare
    figure.suptitle(textwrap.fill(title, characters), fontsize=9, parse_math=False)
    axes = figure.subplots(1, columns, squeeze=False, sharey=sharey)[0]
    return figure, list(axes)


def _legend_beside(figure: Figure, handles: list[Artist]) -> None:
    """Put the legend beside the panels, where it hides no curve."""
    if handles:
        figure.legend(handles=handles, loc="outside right center", frameon=False)


def _save(figure: Figure, path: str | Path) -> None:
    with write_atomically(path) as temporary:
        # No creation date or version in the file: the same figures give the same bytes.
        figure.savefig(temporary, dpi=110, metadata={"Software": None})
