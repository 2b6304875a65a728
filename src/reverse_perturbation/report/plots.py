"""The report's pictures, each drawn from rows that DVC can plot as well."""

import textwrap
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from reverse_perturbation.storage import write_atomically

mpl.use("Agg")
MAX_LABELS = 60  # more condition names than this cannot be read on one axis


def hit_curves(rows: pd.DataFrame, n_conditions: int, path: str | Path, title: str) -> None:
    """Draw hit@k over k; rows have model, k, exact_hit, relevant_hit."""
    figure, axes = _figure(2, title, sharey=True)
    for axis, column, name in zip(axes, ("exact_hit", "relevant_hit"), ("exact", "shares a gene"), strict=True):
        for model, found in rows.groupby("model", sort=False):
            axis.plot(found["k"], found[column], marker=".", label=model)
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
    for model, found in rows.groupby("model", sort=False):
        axes[0].plot(found["coverage"], found["accuracy"], marker=".", label=model)
    axes[0].set(xlabel="coverage: share of queries answered, most confident first", ylabel="exact_hit@1")
    axes[0].set_ylim(bottom=0)
    _legend_beside(figure, axes[0].get_legend_handles_labels()[0])
    _save(figure, path)


def confusion(matrices: Mapping[str, pd.DataFrame], path: str | Path, title: str) -> None:
    """Draw, for each model, the share of each condition's queries (rows) answered with each condition (columns).

    The tables have the same rows and columns; the first picture alone names the rows.
    """
    figure, axes = _figure(len(matrices), title, width=5.2, height=5.8)
    for axis, (model, matrix) in zip(axes, matrices.items(), strict=True):
        image = axis.imshow(matrix.to_numpy(), cmap="magma_r", vmin=0, vmax=1, interpolation="nearest")
        first = axis is axes[0]
        if len(matrix) <= MAX_LABELS:
            axis.set(title=model, xlabel="answered", ylabel="true" if first else "")
            axis.set_xticks(range(len(matrix)), matrix.columns, rotation=90, fontsize=6)
            axis.set_yticks(range(len(matrix)) if first else [], matrix.index if first else [], fontsize=6)
        else:
            order = "condition, in alphabetical order"
            axis.set(title=model, xlabel=f"answered {order}", ylabel=f"true {order}" if first else "")
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
            for column, style in styles.items():
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
    figure.suptitle(textwrap.fill(title, characters), fontsize=9)
    axes = figure.subplots(1, columns, squeeze=False, sharey=sharey)[0]
    return figure, list(axes)


def _legend_beside(figure: Figure, handles: list[Artist]) -> None:
    """Put the legend beside the panels, where it can hide no curve."""
    if handles:
        figure.legend(handles=handles, loc="outside right center", frameon=False)


def _save(figure: Figure, path: str | Path) -> None:
    with write_atomically(path) as temporary:
        # No creation date or version in the file: the same figures give the same bytes.
        figure.savefig(temporary, dpi=110, metadata={"Software": None})
