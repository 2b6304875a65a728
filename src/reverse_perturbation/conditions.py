"""Condition labels and the genes they stand for.

A label is ``A+ctrl`` or ``ctrl+A`` (one gene), ``A+B`` (two), or ``ctrl``. The *legacy* label space takes
labels as they are, so ``A+ctrl`` and ``ctrl+A`` are two conditions although the perturbation is the same
(*twins*). The *canonical* space gives each set of genes one label: ``A+ctrl`` for a single, the genes in
alphabetical order for a double.
"""

from collections.abc import Iterable
from typing import Literal

import numpy as np

CONTROL = "ctrl"
LabelSpace = Literal["legacy", "canonical"]
LABEL_SPACES: tuple[LabelSpace, ...] = ("legacy", "canonical")


def genes_of(label: str) -> frozenset[str]:
    """Return the genes perturbed under a label; the empty set for control.

    Raises
    ------
    ValueError
        If the label is empty or has an empty part, as in ``A+``.
    """
    parts = label.split("+")
    if not all(parts):
        raise ValueError(f"condition label {label!r} has an empty part; expected A+ctrl, ctrl+A, A+B or ctrl")
    return frozenset(part for part in parts if part != CONTROL)


def canonical(label: str) -> str:
    """Return the label all twins share: ``ctrl+A`` and ``A+ctrl`` become ``A+ctrl``, ``B+A`` becomes ``A+B``."""
    genes = sorted(genes_of(label))
    if not genes:
        return CONTROL
    return "+".join(genes) if len(genes) > 1 else f"{genes[0]}+{CONTROL}"


def in_space(labels: Iterable[str], space: LabelSpace) -> np.ndarray:
    """Write legacy labels in a label space.

    Parameters
    ----------
    labels
        Legacy labels, one a cell.
    space
        ``legacy`` leaves them as they are.

    Returns
    -------
    numpy.ndarray
        Object array of strings, as long as ``labels``.
    """
    labels = np.asarray(list(labels), dtype=object)
    if space == "legacy" or not len(labels):
        return labels
    unique, inverse = np.unique(labels.astype(str), return_inverse=True)
    return np.array([canonical(label) for label in unique], dtype=object)[inverse]


def twins(labels: Iterable[str]) -> dict[str, list[str]]:
    """Group legacy labels that name one perturbation: canonical label -> its legacy labels, where several."""
    groups: dict[str, list[str]] = {}
    for label in dict.fromkeys(labels):
        groups.setdefault(canonical(label), []).append(label)
    return {name: members for name, members in groups.items() if len(members) > 1}
