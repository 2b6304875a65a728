"""The report's pictures, each drawn from rows that DVC can plot as well."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reverse_perturbation.storage import write_atomically

mpl.use("Agg")
MAX_LABELS = 60  # more condition names than this cannot be read on one axis


def hit_curves(rows: pd.DataFrame, n_conditions: int, path: str | Path, title: str) -> None:
    """Draw hit@k over k; rows have model, k, exact_hit, relevant_hit."""
    figure, axes = _figure(2, title, sharey=True)
    for axis, column, name in zip(axes, ("exact_hit", "relevant_hit"), ("exact", "shares a gene"), strict=True):
        for model, found in rows.groupby("model", sort=False):
            axis.plot(found["k"], found[column], marker=".", label=model)
        axis.set(xlabel="k", ylabel="hit@k" if axis is axes[0] else "", title=name, ylim=(0, 1))
    k = np.arange(1, rows["k"].max() + 1)
    axes[0].plot(k, k / n_conditions, color="0.6", linestyle=":", label="chance")
    axes[0].legend(frameon=False)
    _save(figure, path)


def coverage_curves(rows: pd.DataFrame, path: str | Path, title: str) -> None:
    """Draw accuracy over the share of most confident queries; rows have model, coverage, accuracy."""
    figure, axes = _figure(1, title)
    for model, found in rows.groupby("model", sort=False):
        axes[0].plot(found["coverage"], found["accuracy"], marker=".", label=model)
    axes[0].set(xlabel="coverage: share of queries answered, most confident first", ylabel="exact_hit@1", ylim=(0, 1))
    axes[0].legend(frameon=False)
    _save(figure, path)


def confusion(matrices: Mapping[str, pd.DataFrame], path: str | Path, title: str) -> None:
    """Draw, for each model, the share of each condition's queries (rows) answered with each condition (columns)."""
    figure, axes = _figure(len(matrices), title, size=6.4)
    for axis, (model, matrix) in zip(axes, matrices.items(), strict=True):
        image = axis.imshow(matrix.to_numpy(), cmap="magma_r", vmin=0, vmax=1, interpolation="nearest")
        axis.set(title=model, xlabel="answered", ylabel="true" if axis is axes[0] else "")
        if len(matrix) <= MAX_LABELS:
            axis.set_xticks(range(len(matrix)), matrix.columns, rotation=90, fontsize=6)
            first = axis is axes[0]
            axis.set_yticks(range(len(matrix)) if first else [], matrix.index if first else [], fontsize=6)
    figure.colorbar(image, ax=axes, shrink=0.7, label="share of the condition's queries")
    _save(figure, path)


def training_curves(runs: Mapping[str, pd.DataFrame], path: str | Path, title: str) -> None:
    """Draw losses, validation metrics and learning rates over epochs; one colour a seed."""
    figure, axes = _figure(3, title)
    for number, (name, run) in enumerate(runs.items()):
        colour = f"C{number}"
        axes[0].plot(run.index, run["train_loss"], color=colour, linestyle="--", label=f"{name}, train")
        axes[0].plot(run.index, run["validation_loss"], color=colour, label=f"{name}, validation")
        axes[1].plot(run.index, run["exact_hit_at_1"], color=colour, label=f"{name}, exact_hit@1")
        axes[1].plot(run.index, run["mrr"], color=colour, linestyle="--", label=f"{name}, mrr")
        axes[2].plot(run.index, run["head_learning_rate"], color=colour, label=f"{name}, head")
        axes[2].plot(run.index, run["backbone_learning_rate"], color=colour, linestyle="--", label=f"{name}, backbone")
    for axis, ylabel in zip(
        axes, ("cross-entropy, nats", "on validation", "learning rate at epoch's end"), strict=True
    ):
        axis.set(xlabel="epoch", ylabel=ylabel)
        axis.legend(frameon=False, fontsize=7)
    axes[1].set_ylim(bottom=0)
    _save(figure, path)


def _figure(columns: int, title: str, size: float = 4.4, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(size * columns + 0.6, size * 0.86), layout="constrained")
    figure.suptitle(title, fontsize=9)
    axes = figure.subplots(1, columns, squeeze=False, sharey=sharey)[0]
    return figure, list(axes)


def _save(figure: Figure, path: str | Path) -> None:
    with write_atomically(path) as temporary:
        # No creation date or version in the file: the same figures give the same bytes.
        figure.savefig(temporary, dpi=110, metadata={"Software": None})
