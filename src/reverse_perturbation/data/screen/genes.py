"""Gene names: synonyms, and the tokens of a vocabulary."""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reverse_perturbation.errors import InputError

# HGNC's previous and alias symbols; source, rule and licence in gene_aliases.md beside it.
ALIASES = Path(__file__).parent / "gene_aliases.csv"

# Least share of UMIs of genes with a token. The simulated default has 0.989, the three real screens at hand 0.998 and
# more; a file of another species has only the symbols that both spell alike.
LEAST_UMIS = 0.2  # less is an error
FEW_UMIS = 0.8  # less is said on vocab_map's line
MOUSE = re.compile(r"[A-Z][a-z0-9.-]*[a-z][a-z0-9.-]*|mt-[A-Z][A-Za-z0-9]*")  # Klf1, Gata1, mt-Nd1


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


def coverage(mapped: pd.DataFrame, targets: pd.DataFrame, umis: np.ndarray) -> dict[str, Any]:
    """Return how much of the screen the vocabulary covers, without and with aliases.

    Parameters
    ----------
    mapped
        Of :func:`map_genes`, for the measured genes.
    targets
        Of :func:`map_genes`, for the genes the labels name, measured or not.
    umis
        float [n_genes]: total counts of each measured gene.

    Returns
    -------
    dict
        Shares ``before_aliases`` and ``after_aliases`` of genes, targets, measured targets (None without any) and
        UMIs; counts; the names without a token; and ``shadowed``: genes left without a token because another
        gene has the only one they could have -> that token.

    Raises
    ------
    InputError
        If there are no counts, or the genes with a token have less than ``LEAST_UMIS`` of them.
    """
    has_token = (mapped["match"] != "none").to_numpy()
    if not has_token.any():
        found = f"none of the {len(mapped):,} genes (for example {mapped['gene'].iloc[0]!r}) is"
        raise InputError(f'var["gene_name"]: {found} in the {_of_which_species(mapped["gene"])}')
    if not umis.any():
        raise InputError('layers["counts"] holds no counts; put the raw counts there')
    if (share := umis[has_token].sum() / umis.sum()) < LEAST_UMIS:
        found = f"only {has_token.sum():,} of the {len(mapped):,} genes, with {share:.1%} of UMIs,"
        found += " is" if has_token.sum() == 1 else " are"
        raise InputError(
            f'var["gene_name"]: {found} in the {_of_which_species(mapped["gene"])}. At least {LEAST_UMIS:.0%} of UMIs '
            f"must be of its genes; not in it are, for example, {', '.join(without_token(mapped, umis))}"
        )
    measured = are_targets(mapped["gene"], targets["gene"])
    given = {resolve(token): token for token in mapped.loc[has_token, "token"]}
    unmapped = mapped.loc[~has_token, "gene"]

    def shares(matches: set[str]) -> dict[str, float | None]:
        hit = mapped["match"].isin(matches).to_numpy()
        return {
            "genes": float(hit.mean()),
            "targets": float(targets["match"].isin(matches).mean()) if len(targets) else None,
            "measured_targets": float(hit[measured].mean()) if measured.any() else None,
            "umis": float(umis[hit].sum() / umis.sum()),
        }

    return {
        "genes": len(mapped),
        "targets": len(targets),
        "measured_targets": int(measured.sum()),
        "match": {name: int((mapped["match"] == name).sum()) for name in ("exact", "alias", "none")},
        "before_aliases": shares({"exact"}),
        "after_aliases": shares({"exact", "alias"}),
        "unmapped_targets": sorted(targets.loc[targets["match"] == "none", "gene"]),
        "shadowed": {gene: given[resolve(gene)] for gene in sorted(unmapped) if resolve(gene) in given},
        "unmapped": sorted(unmapped),
    }


def are_targets(gene_names: Iterable[str], targets: Iterable[str]) -> np.ndarray:
    """Return for each gene whether it is a target, also under a synonym: what the mask ``all_targets`` hides."""
    named = {resolve(target) for target in targets}
    return np.array([resolve(name) in named for name in gene_names], dtype=bool)


def without_token(mapped: pd.DataFrame, umis: np.ndarray, most: int = 3) -> list[str]:
    """Return the genes without a token that have the most UMIs."""
    missing = mapped["gene"].to_numpy(dtype=object)[(mapped["match"] == "none").to_numpy()]
    order = np.argsort(-umis[(mapped["match"] == "none").to_numpy()], kind="stable")
    return [str(gene) for gene in missing[order][:most]]


def _of_which_species(names: pd.Series) -> str:
    """Return what the vocabulary holds, what the names look like, and what to do."""
    holds = "foundation model's vocabulary; it holds human gene symbols such as KLF1, not Ensembl ids or other species"
    mouse = [name for name in names if MOUSE.fullmatch(name)]
    if 2 * len(mouse) > len(names):
        return f"{holds}. These are mouse symbols ({', '.join(mouse[:3])}): replace each by its human orthologue"
    return f"{holds}. Write the genes, and the targets of the labels, as human symbols"
