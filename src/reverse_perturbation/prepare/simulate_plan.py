"""Plan of a simulated screen: cells per condition and gene names."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from reverse_perturbation.conditions import CONTROL, canonical, genes_of
from reverse_perturbation.errors import InputError
from reverse_perturbation.sections import Simulated

MIN_CELLS = 50  # conditions with fewer are not counted among data.simulated.n_conditions: the split drops them
FLOOR = 60  # cells a condition keeps when the screen is scaled down, so that the split's default of 50 keeps it
OUTSIDE_VOCABULARY = 0.10  # 498 of the 5,045 genes of the Norman file are not tokens of scGPT
RENAMED = 0.6  # share of those that are in the vocabulary under their current symbol


def plan_cells(conditions: pd.DataFrame, config: Simulated) -> pd.Series:
    """Choose conditions and scale their cells down.

    The most frequent labels are kept; twins (``A+ctrl`` and ``ctrl+A``) are taken together at the place of the more
    frequent one, or left out where only one of them would still fit. Labels too rare for the split come in only
    when all others do. Cells are scaled by one factor, control too, but no condition falls below ``FLOOR``
    unless the table itself has fewer.

    Parameters
    ----------
    conditions
        Columns ``condition`` (legacy labels, ``ctrl`` among them) and ``cells``.
    config
        Section ``data.simulated``.

    Returns
    -------
    pandas.Series
        int64 cells, indexed by condition in the order of the table; the sum is ``config.n_cells``.

    Raises
    ------
    InputError
        If the table is not such a table, or asks for more or fewer cells or conditions than it allows.
    """
    table = _checked(conditions)
    counts = table[_kept(table, config.n_conditions)]
    floor = counts.clip(upper=FLOOR)
    if config.n_cells < floor.sum():
        raise InputError(
            f"data.simulated.n_cells: {config.n_cells} are too few for {config.n_conditions} conditions and control: "
            f"each needs {FLOOR}, because the split drops conditions below split.min_cells; "
            f"ask for at least {floor.sum()} or for fewer data.simulated.n_conditions"
        )
    if config.n_cells > counts.sum():
        raise InputError(
            f"data.simulated.n_cells: {config.n_cells}, but the {config.n_conditions} conditions and control have "
            f"{counts.sum()} cells in the table of data.path; ask for fewer cells or more conditions"
        )
    return _scaled(counts, floor, config.n_cells)


def _checked(conditions: pd.DataFrame) -> pd.Series:
    if not {"condition", "cells"} <= set(conditions.columns):
        raise InputError(f"data.path: the table needs columns condition and cells, found {list(conditions.columns)}")
    labels = conditions["condition"].astype(str)
    if labels.duplicated().any():
        raise InputError(f"data.path: condition {labels[labels.duplicated()].iloc[0]!r} stands twice in the table")
    if CONTROL not in set(labels):
        raise InputError(f"data.path: the table has no row for control cells; add {CONTROL!r}")
    if not pd.api.types.is_integer_dtype(conditions["cells"]) or (conditions["cells"] < 1).any():
        raise InputError("data.path: column cells must hold whole numbers of at least 1")
    for label in labels:
        try:
            genes_of(label)
        except ValueError as error:
            raise InputError(f"data.path: {error}") from None
    return pd.Series(conditions["cells"].to_numpy(dtype=np.int64), index=labels.to_list())


def _kept(table: pd.Series, wanted: int) -> list[str]:
    perturbed = table.drop(CONTROL)
    frequent = perturbed[perturbed >= MIN_CELLS].sort_values(ascending=False, kind="stable")
    if wanted > len(frequent):
        raise InputError(
            f"data.simulated.n_conditions: {wanted}, but the table of data.path has {len(frequent)} conditions with at "
            f"least {MIN_CELLS} cells; ask for at most {len(frequent)}"
        )
    if wanted == len(frequent):
        return list(table.index)
    names = frequent.index.to_series()
    groups = names.groupby(names.map(canonical), sort=False).apply(list)
    kept = {CONTROL}
    for group in groups:
        if len(kept) - 1 + len(group) <= wanted:
            kept.update(group)
    if len(kept) - 1 < wanted:
        raise InputError(
            f"data.simulated.n_conditions: {wanted} cannot be reached without separating twins (A+ctrl and ctrl+A); "
            f"ask for {len(kept) - 1}"
        )
    return [label for label in table.index if label in kept]


def _scaled(counts: pd.Series, floor: pd.Series, total: int) -> pd.Series:
    """Find one factor with max(floor, factor * counts) summing to ``total``; round by the largest remainder."""
    low, high = 0.0, 1.0
    for _ in range(60):  # bisection to the last bit
        middle = (low + high) / 2
        low, high = (middle, high) if (middle * counts).clip(lower=floor).sum() <= total else (low, middle)
    exact = counts if total == counts.sum() else (low * counts).clip(lower=floor)
    whole = exact.astype(np.int64)
    remainder = (exact - whole).sort_values(ascending=False, kind="stable")
    whole[remainder.index[: total - whole.sum()]] += 1
    return whole


def name_genes(
    targets: Sequence[str],
    number: int,
    vocabulary: Sequence[str],
    aliases: Mapping[str, str],
    rng: np.random.Generator,
) -> list[str]:
    """Name the genes: all targets, most others as in the vocabulary, some not.

    ``OUTSIDE_VOCABULARY`` of all names are not in the vocabulary, among them the targets that are not: ``RENAMED``
    of the others are old symbols of genes that are in it, the rest clone names such as ``RP11-34P13.7``. No gene
    comes in under two symbols.

    Parameters
    ----------
    targets
        Perturbed genes as the labels spell them.
    number
        Of genes.
    vocabulary
        Tokens of scGPT.
    aliases
        Other symbol -> current symbol.

    Returns
    -------
    list of str
        In random order.

    Raises
    ------
    InputError
        If there are fewer genes than targets, or more than the vocabulary can name.
    """
    if number < len(targets):
        raise InputError(
            f"data.simulated.n_genes: {number}, but the conditions perturb {len(targets)} genes, all simulated; "
            f"ask for at least {len(targets)} genes or for fewer data.simulated.n_conditions"
        )
    tokens = set(vocabulary)
    taken = {aliases.get(gene, gene) for gene in targets}
    outside = min(
        number - len(targets),
        round(OUTSIDE_VOCABULARY * number) - sum(gene not in tokens for gene in targets),
    )
    renamed = _renamed(max(0, round(RENAMED * outside)), tokens, aliases, taken, rng)
    taken.update(aliases[name] for name in renamed)
    clones = _clones(max(0, outside - len(renamed)), tokens, aliases, rng)
    rest = number - len(targets) - len(renamed) - len(clones)
    # Names with a dot are clones or versions; those in <> are not genes.
    known = [t for t in vocabulary if t not in taken and t not in aliases and "." not in t and not t.startswith("<")]
    if rest > len(known):
        raise InputError(
            f"data.simulated.n_genes: {number}, but scGPT's vocabulary names only {len(known)} other genes; "
            f"ask for at most {number - rest + len(known)}"
        )
    names = [*targets, *renamed, *clones, *(known[i] for i in rng.choice(len(known), rest, replace=False))]
    return [names[i] for i in rng.permutation(number)]


def _renamed(
    number: int, tokens: set[str], aliases: Mapping[str, str], taken: set[str], rng: np.random.Generator
) -> list[str]:
    candidates: dict[str, str] = {}
    for alias, symbol in sorted(aliases.items()):
        if alias not in tokens and symbol in tokens and symbol not in taken and alias not in taken:
            candidates.setdefault(symbol, alias)
    names = list(candidates.values())
    return [names[i] for i in rng.permutation(len(names))[:number]]


def _clones(number: int, tokens: set[str], aliases: Mapping[str, str], rng: np.random.Generator) -> list[str]:
    names: dict[str, None] = {}
    while len(names) < number:
        plate, row, column, gene = rng.integers((1, 0, 1, 1), (1200, 16, 25, 20))
        name = f"RP11-{plate}{'ABCDEFGHIJKLMNOP'[row]}{column}.{gene}"
        if name not in tokens and name not in aliases:
            names[name] = None
    return list(names)
