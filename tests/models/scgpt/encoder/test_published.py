"""Published weights must belong to their vocabulary; others of the same sizes pass, and are not taken for them."""

import numpy as np
import pandas as pd
import pytest
import torch

from reverse_perturbation.errors import InputError
from reverse_perturbation.models.scgpt.encoder.published import GOLDEN_ROWS, identify
from reverse_perturbation.models.scgpt.encoder.vocabulary import default_vocabulary

GOLDEN = pd.read_csv(GOLDEN_ROWS)
VOCABULARY = default_vocabulary()
SOME = list(GOLDEN["gene"][:2])


@pytest.fixture(scope="module")
def table() -> torch.Tensor:
    """Random rows, but for the first numbers and lengths of the 18 published ones."""
    rng = np.random.default_rng(0)
    rows = rng.normal(0, 0.07, (len(VOCABULARY), 512)).astype(np.float32)
    for i, norm, *first in GOLDEN.drop(columns="gene").itertuples(index=False):
        rest = rows[int(i), 8:]
        rows[int(i), :8] = first
        rows[int(i), 8:] *= np.sqrt(norm**2 - np.square(first).sum()) / np.linalg.norm(rest)
    return torch.from_numpy(rows)


def swapped(one: str, other: str) -> dict[str, int]:
    return VOCABULARY | {one: VOCABULARY[other], other: VOCABULARY[one]}


def test_the_published_rows_are_those_of_the_official_vocabulary():
    assert [VOCABULARY[gene] for gene in GOLDEN["gene"]] == list(GOLDEN["token_id"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_published_embedding_in_another_file(table, dtype):
    assert "scGPT whole-human, in another file" in identify(table.to(dtype), VOCABULARY, "", "base")


def test_more_tokens_and_a_part_of_them_in_another_order_are_right(table):
    longer = torch.cat([table, table[:1] * 0.5])
    assert "in another file" in identify(longer, VOCABULARY | {"<mask>": len(VOCABULARY)}, "", "base")
    kept = [*GOLDEN["gene"][::-1], "TP53", "<cls>", "<pad>"]
    part = {gene: i for i, gene in enumerate(kept)}
    assert "in another file" in identify(table[[VOCABULARY[gene] for gene in kept]], part, "", "base")


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        pytest.param(swapped(*SOME), f"embedding of {SOME[0]} stands at token", id="two known genes"),
        pytest.param(swapped("TP53", "GATA1"), r"vocab\.json gives \w+ the token \d+, but in scGPT", id="two others"),
        pytest.param({gene: (i + 1) % len(VOCABULARY) for gene, i in VOCABULARY.items()}, "stands at token", id="all"),
    ],
)
def test_a_permuted_vocabulary(table, vocabulary, message):
    with pytest.raises(InputError, match=f"^base: .*{message}"):
        identify(table, vocabulary, "", "base")


def test_permuted_weights(table):
    with pytest.raises(InputError, match="embedding of ISG15 stands at token"):
        identify(table.roll(1, dims=0), VOCABULARY, "", "base")
    columns = torch.from_numpy(np.random.default_rng(0).permutation(512))
    with pytest.raises(InputError, match="numbers are in another order"):
        identify(table[:, columns], VOCABULARY, "", "base")


@pytest.mark.parametrize("scale", [0.07, 0.0715, 1.0])
def test_random_weights_of_the_official_sizes_are_said_to_be_others(scale):
    random = torch.randn(len(VOCABULARY), 512, generator=torch.Generator().manual_seed(0)) * scale
    assert identify(random, VOCABULARY, "", "base") == "whole-human vocabulary, but not the published weights"
    assert identify(random[:, :64], VOCABULARY, "", "base") == "whole-human vocabulary, but not the published weights"
    assert identify(random, swapped(*SOME), "", "base") is None


@pytest.mark.parametrize("step", [1e-4, 2e-3, 2e-2])
def test_published_weights_trained_further_pass(table, step):
    """With some rows as they were: genes that the other cells lack."""
    further = table + step * torch.randn(table.shape, generator=torch.Generator().manual_seed(0))
    further[VOCABULARY["JUN"]] = table[VOCABULARY["JUN"]]
    assert identify(further, VOCABULARY, "", "base")
