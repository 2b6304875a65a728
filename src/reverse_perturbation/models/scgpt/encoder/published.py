"""Whether weights are the published scGPT whole-human, and belong to their vocabulary."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from reverse_perturbation.errors import InputError
from reverse_perturbation.models.scgpt.encoder.vocabulary import default_vocabulary

KNOWN = {"6cb5d451ab5c4b33eb673adbe4fddc61d2389df1b89b7651a9fe2e557572b922": "scGPT whole-human"}
# 18 genes' rows of the published encoder.embedding.weight: token id, Euclidean norm and the first eight of 512 numbers.
# From a table of gene embeddings in the history of kushminer/crispr-perturbation-manifold-benchmarks, blob eab09ea025.
GOLDEN_ROWS = Path(__file__).with_name("golden_rows.csv")
WIDTH = 512
TOLERANCE = 1e-3  # what rounding to bfloat16 changes at most; a random row comes this near once in 1e16
ALIKE = 0.5  # minimum correlation of first numbers; about 0 where columns are permuted, near 1 after further training


def identify(table: Tensor, vocabulary: Mapping[str, int], digest: str, source: object) -> str | None:
    """Name a checkpoint by its file's hash or its gene embedding, and refuse a published one in a wrong order.

    Weights of the official sizes and vocabulary may be anybody's: freshly initialised, or trained further. So neither
    makes a checkpoint claim to be the published one; only numbers of it do. A row that is a published gene's, wherever
    it stands, must stand at that gene's token; rows at their published places bind all other tokens to theirs; and
    rows that all have the published lengths must point the published way. What holds no published row passes as
    unknown, and where its vocabulary is whole-human's that is said.

    Parameters
    ----------
    table
        The gene embedding, float [tokens, width].
    vocabulary
        Gene symbol -> token id.
    digest
        sha256 of the file of weights.
    source
        Names the checkpoint in errors.

    Returns
    -------
    str or None
        None for a checkpoint of unknown origin.

    Raises
    ------
    InputError
        If rows of the published gene embedding stand at other tokens' places, or their numbers in another order.
    """
    official = default_vocabulary()
    recognised = False
    if table.shape[1] == WIDTH:
        golden = pd.read_csv(GOLDEN_ROWS)
        rows = table.float().numpy()
        recognised = _check_rows(golden, rows, vocabulary, source)
        _check_columns(golden, rows, vocabulary, source)
        if recognised and all(vocabulary.get(gene) == official[gene] for gene in golden["gene"]):
            _check_tokens(official, vocabulary, source)
    if digest in KNOWN:
        return KNOWN[digest]
    if recognised:
        return "the gene embedding of scGPT whole-human, in another file than the published one"
    return "whole-human vocabulary, but not the published weights" if vocabulary == official else None


def _check_tokens(official: Mapping[str, int], vocabulary: Mapping[str, int], source: object) -> None:
    """Refuse tokens that are not those of the published weights; more tokens, or fewer, may be right."""
    for gene, token in official.items():
        if vocabulary.get(gene, token) != token:
            raise InputError(
                f"{source}: vocab.json gives {gene} the token {vocabulary[gene]}, but in scGPT whole-human, whose "
                f"weights these are, it has {token}; take vocab.json from the same source"
            )


def _check_rows(golden: pd.DataFrame, rows: np.ndarray, vocabulary: Mapping[str, int], source: object) -> bool:
    """Return whether all golden rows are there; an error if one stands at another gene's token."""
    found = 0
    for gene, first in zip(golden["gene"], _first(golden), strict=True):
        places = np.flatnonzero((np.abs(rows[:, : len(first)] - first) < TOLERANCE).all(axis=1))
        if len(places) and gene in vocabulary and vocabulary[gene] not in places:
            raise InputError(
                f"{source}: the published embedding of {gene} stands at token {places[0]}, but vocab.json gives it "
                f"{vocabulary[gene]}; take vocab.json and the weights from the same source"
            )
        found += len(places) > 0
    return found == len(golden)


def _check_columns(golden: pd.DataFrame, rows: np.ndarray, vocabulary: Mapping[str, int], source: object) -> None:
    """Refuse rows of the published lengths that point elsewhere."""
    if not all(gene in vocabulary for gene in golden["gene"]):
        return
    mine = rows[[vocabulary[gene] for gene in golden["gene"]]]
    first = _first(golden)
    if (
        np.allclose(np.linalg.norm(mine, axis=1), golden["norm"], rtol=TOLERANCE, atol=0)
        and np.corrcoef(mine[:, : first.shape[1]].ravel(), first.ravel())[0, 1] < ALIKE
    ):
        raise InputError(
            f"{source}: the rows of encoder.embedding.weight have the lengths of scGPT whole-human, but their numbers "
            "are in another order; take the weights from their source again"
        )


def _first(golden: pd.DataFrame) -> np.ndarray:
    return golden.filter(regex=r"^x\d$").to_numpy(np.float32)
