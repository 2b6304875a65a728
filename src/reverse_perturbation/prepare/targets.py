"""Targets that are spelt almost like another gene.

A measured one would escape the mask, and the guides of one gene would be several conditions.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache

from reverse_perturbation.data.screen.genes import load_aliases, resolve
from reverse_perturbation.errors import InputError
from reverse_perturbation.prepare.source.labels import is_control

SEPARATORS = re.compile(r"[-._:|/\s]+")
# Parts of guide names: sg1, gRNA_2, guide3, P1P2, i, KO, a number.
AFFIX = re.compile(r"(?:s?gr?(?:rna)?|guide|target|crispr[aiko]*|ko|kd|oe|p[12](?:p2)?|[ai])?\d{0,3}$", re.IGNORECASE)
GLUED = re.compile(r"^(?:sg(?:RNA)?|gRNA|g)(?=[A-Z])|(?<=[A-Z0-9])(?:sg(?:RNA)?|gRNA|g)\d+$")
ENSEMBL = re.compile(r"ENS[A-Z]*G\d{11}", re.IGNORECASE)


def near_misses(targets: Iterable[str], gene_names: Sequence[str], symbols: Collection[str]) -> dict[str, str]:
    """Find targets that are no measured gene, not by a synonym either, but are spelt almost like one.

    Case, separators, a version, and prefixes and suffixes of guides are ignored, any of them combined.

    Parameters
    ----------
    targets
        Genes as the labels spell them.
    gene_names
        Measured genes.
    symbols
        Known gene symbols: a target among them is that gene, whatever it resembles (MTTP is not MT-TP).

    Returns
    -------
    dict
        Target -> the measured gene it resembles, in alphabetical order of the targets.
    """
    known = {resolve(name) for name in gene_names}
    by_key: dict[str, str] = {}
    for name in gene_names:
        for spelling in (name, resolve(name)):
            by_key.setdefault(_key(spelling), name)
            if ENSEMBL.match(spelling):
                by_key.setdefault(_key(spelling.split(".")[0]), name)
    unmatched = [target for target in set(targets) if resolve(target) not in known and resolve(target) not in symbols]
    misses = {}
    for target in sorted(unmatched):
        keys = (key if key in by_key else _key(_aliases().get(key, "")) for key in _spellings(target))
        if similar := next((by_key[key] for key in keys if key in by_key), None):
            misses[target] = similar
    return misses


def check_targets(
    path: object, targets: Iterable[str], gene_names: Sequence[str], symbols: Collection[str]
) -> list[str]:
    """Refuse labels whose targets would escape the mask by their spelling, or are spelt almost like another gene.

    Parameters
    ----------
    path
        Names the file in the error.
    targets, gene_names, symbols
        As :func:`near_misses` takes them.

    Returns
    -------
    list of str
        Targets that are neither measured nor known symbols.

    Raises
    ------
    InputError
        Naming each such target and the gene it resembles, or that one side has Ensembl ids and the other symbols.
    """
    targets = sorted(set(targets))
    if similar := near_misses(targets, gene_names, symbols):
        raise InputError(
            f'{path}: obs["condition"] names targets that are not in var["gene_name"], but {_listed(similar)}; '
            "the mask would not hide them. Write each target exactly as its gene"
        )
    ids = [sum(bool(ENSEMBL.match(name)) for name in names) / max(len(names), 1) for names in (targets, gene_names)]
    if max(ids) > 0.5 and min(ids) < 0.5 and targets:
        kinds = ["Ensembl ids" if share > 0.5 else "symbols" for share in ids]
        raise InputError(
            f'{path}: obs["condition"] names targets by {kinds[0]} and var["gene_name"] holds {kinds[1]}; the mask '
            "would hide nothing. Write both as gene symbols"
        )
    known = {*symbols, *load_aliases().values(), *map(resolve, gene_names)}
    unknown = [target for target in targets if resolve(target) not in known]
    if joined := [target for target in unknown if _joins_genes(target, known)]:
        more = f" and {len(joined) - 5} more" if len(joined) > 5 else ""
        raise InputError(
            f'{path}: obs["condition"] names targets that are several genes: {", ".join(map(repr, joined[:5]))}{more}; '
            "the mask would not hide them. Write A+B, or A+ctrl for a gene and control"
        )
    if similar := near_misses(unknown, list(known) if unknown else [], ()):
        raise InputError(
            f'{path}: obs["condition"] names targets that are no gene symbols, but {_listed(similar)}; several '
            "spellings or guides of one gene would be several conditions. Write each target exactly as its gene"
        )
    return unknown


def _joins_genes(target: str, known: Collection[str]) -> bool:
    """Return whether a target that is no gene is made of genes, or of a gene and control."""
    parts = [part for part in SEPARATORS.split(target) if part]
    genes = [part for part in parts if resolve(part) in known]
    return len(parts) > 1 and bool(genes) and all(part in genes or is_control(part) for part in parts)


def _listed(similar: Mapping[str, str]) -> str:
    pairs = [f"{target!r} is almost {gene!r}" for target, gene in list(similar.items())[:5]]
    return "; ".join(pairs) + (f" and {len(similar) - 5} more" if len(similar) > 5 else "")


def _spellings(target: str) -> Iterator[str]:
    """Yield keys of a target: without what looks like a part of a guide's name, then as a whole."""
    whole = []
    for spelling in dict.fromkeys((target, GLUED.sub("", target))):
        parts = [part for part in SEPARATORS.split(spelling) if part]
        affix = [AFFIX.match(part) is not None for part in parts]
        whole.append(_key(spelling))
        for length in range(len(parts) - 1, 0, -1):
            for first in range(len(parts) - length + 1):
                last = first + length
                if all(affix[:first]) and all(affix[last:]):
                    yield _key("".join(parts[first:last]))
    yield from whole


@cache
def _aliases() -> dict[str, str]:
    return {_key(alias): symbol for alias, symbol in load_aliases().items()}


def _key(name: str) -> str:
    return SEPARATORS.sub("", name).casefold()
