"""Targets that are spelt almost like another gene.

A measured one would escape the mask, and the guides of one gene would be several conditions.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache

from reverse_perturbation.data.screen.genes import load_aliases, resolve
from reverse_perturbation.errors import InputError, listed
from reverse_perturbation.prepare.source.labels import is_control

SEPARATORS = re.compile(r"[\W_]+")
BESIDE_SYMBOLS = re.compile(r"[^\w.-]+|_")  # separators that are in no symbol, as a hyphen is in KLF1-AS1
# Parts of guide names (sg1, gRNA_2, guide3, P1P2, i, KO, a number), Ensembl ids, and genomes in 10x's names of genes.
AFFIX = re.compile(
    r"(?:(?:s?gr?(?:rna)?|guide|target|crispr[aiko]*|ko|kd|oe|p[12](?:p2)?|[ai])?\d{0,3}|ens[a-z]*g\d{11}|grch3[78]|hg\d\d)$",
    re.IGNORECASE,
)
GLUED = re.compile(
    r"^(?:sg(?:RNA)?|gRNA|[ghm])(?=[A-Z])|(?<=[A-Z0-9])(?:(?:sg(?:RNA)?|gRNA|g)\d+|ko|KO|kd|KD|oe|OE)$"
)  # fmt: skip
SHORTEST = 3  # letters of a part that is taken for a gene whatever the other parts are
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


def escaping(gene_names: Iterable[str], targets: Iterable[str], symbols: Collection[str]) -> dict[str, str]:
    """Find measured genes that are spelt almost like a target, so that a mask by name would miss them.

    ``KLF1-1`` is a second column of KLF1 that was made unique, ``GRCh38_KLF1`` has the genome before it. As in
    :func:`near_misses`, with the roles exchanged; a known symbol is that gene, unless an Ensembl id is part of it.

    Returns
    -------
    dict
        Measured gene -> target.
    """
    by_key: dict[str, str] = {}
    for target in sorted(set(targets)):
        for spelling in (target, resolve(target)):
            by_key.setdefault(_key(spelling), target)
    hidden = {resolve(target) for target in by_key.values()}
    current = set(load_aliases().values())
    misses = {}
    for name in gene_names:
        is_known = (name in symbols or resolve(name) in current) and not ENSEMBL.search(name)
        if is_known or resolve(name) in hidden:
            continue
        keys = (key if key in by_key else _key(_aliases().get(key, "")) for key in _spellings(name))
        if similar := next((by_key[key] for key in keys if key in by_key), None):
            misses[name] = similar
    return misses


def check_targets(
    path: object, targets: Iterable[str], gene_names: Sequence[str], symbols: Collection[str]
) -> list[str]:
    """Refuse targets and genes that would escape the mask by their spelling, and targets spelt almost like another.

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
    known = {*symbols, *load_aliases().values(), *map(resolve, gene_names)}
    unknown = [target for target in targets if resolve(target) not in known]
    if joined := [target for target in unknown if _joins_genes(target, known)]:
        raise InputError(
            f"{path}: its labels name targets that are several genes: {listed(list(map(repr, joined)))}; the mask "
            "would not hide them. Write A+B, or A+ctrl for a gene and control"
        )
    if controls := [target for target in unknown if _has_control(target)]:
        raise InputError(
            f"{path}: its labels name targets with a word for control in them: {listed(list(map(repr, controls)))}; "
            "write ctrl for control"
        )
    if similar := near_misses(targets, gene_names, symbols):
        raise InputError(
            f"{path}: its labels name targets that are no measured genes, but {_pairs(similar)}; the mask would not "
            "hide them. Write each target exactly as its gene"
        )
    if similar := escaping(gene_names, targets, symbols):
        raise InputError(
            f"{path}: its genes are no targets, but {_pairs(similar)}; the mask would not hide them. Write each gene "
            "exactly as the target it is, columns of one gene as one, or rename a gene that is another"
        )
    ids = [sum(bool(ENSEMBL.match(name)) for name in names) / max(len(names), 1) for names in (targets, gene_names)]
    if max(ids) > 0.5 and min(ids) < 0.5 and targets:
        kinds = ["Ensembl ids" if share > 0.5 else "symbols" for share in ids]
        raise InputError(
            f"{path}: its labels name targets by {kinds[0]}, and its genes are {kinds[1]}; the mask would hide "
            "nothing. Write both as gene symbols"
        )
    if similar := near_misses(unknown, list(known) if unknown else [], ()):
        raise InputError(
            f"{path}: its labels name targets that are no gene symbols, but {_pairs(similar)}; several "
            "spellings or guides of one gene would be several conditions. Write each target exactly as its gene"
        )
    return unknown


def _joins_genes(target: str, known: Collection[str]) -> bool:
    """Return whether a target that is no gene is made of genes, or of a gene and control."""
    parts = [part for part in SEPARATORS.split(target) if part]
    genes = [part for part in parts if resolve(part) in known]
    return len(parts) > 1 and bool(genes) and all(part in genes or is_control(part) for part in parts)


def _has_control(target: str) -> bool:
    """Return whether some neighbouring parts of a target are a word for control."""
    parts = [part for part in SEPARATORS.split(target) if part]
    return any(is_control("".join(parts[i:j])) for i in range(len(parts)) for j in range(i + 1, len(parts) + 1))


def _pairs(similar: Mapping[str, str]) -> str:
    return listed([f"{name!r} is almost {other!r}" for name, other in similar.items()])


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
        parts = [part for part in BESIDE_SYMBOLS.split(spelling) if part]
        whole += [_key(part) for part in parts if len(parts) > 1 and len(part) >= SHORTEST]
    yield from whole


@cache
def _aliases() -> dict[str, str]:
    return {_key(alias): symbol for alias, symbol in load_aliases().items()}


def _key(name: str) -> str:
    return SEPARATORS.sub("", name).casefold()
