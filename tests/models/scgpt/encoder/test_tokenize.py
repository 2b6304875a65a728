"""What a cell's tokens are, by hand, against scGPT's own binning, whatever stands beside the cell; from a screen."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scgpt.preprocess import binning
from scipy.stats import kstest

from reverse_perturbation.data.screen.masked_screen import MaskedScreen
from reverse_perturbation.errors import InputError
from reverse_perturbation.models.encoder.tokens import Tokens
from reverse_perturbation.models.scgpt.encoder import tokenize as module
from reverse_perturbation.models.scgpt.encoder.backbone import ScgptBackbone
from reverse_perturbation.models.scgpt.encoder.checkpoint import ScgptCheckpoint
from reverse_perturbation.models.scgpt.encoder.tokenize import tokenize
from reverse_perturbation.models.scgpt.pretrain import small_architecture, small_vocabulary
from reverse_perturbation.sections import Scgpt, ValueInput
from tests.models.conftest import PARAMS

SPECIAL = {"<pad>": 100, "<cls>": 101}
GENES = np.array(["G0", "G1", "G2"], dtype=object)
SCREEN = MaskedScreen(
    cell_ids=np.array(["a", "b"], dtype=object),
    conditions=np.array(["G0", "G1"], dtype=object),
    parts=np.array(["reference", "query"], dtype=object),
    counts=sp.csr_matrix(np.array([[1, 3, 0], [0, 63, 1]], dtype=np.float32)),
    totals=np.array([1e4, 1e4], dtype=np.float32),
    genes=GENES,
    tokens=GENES,
)


def tokens_of(counts, *, token_ids=None, cell_ids=None, totals=None, **changes) -> Tokens:
    counts = sp.csr_matrix(np.asarray(counts, dtype=np.float32))
    n, genes = counts.shape
    return tokenize(
        counts,
        np.asarray(counts.sum(axis=1)).ravel() if totals is None else np.asarray(totals),
        token_ids=np.arange(genes) if token_ids is None else np.asarray(token_ids),
        cell_ids=np.array([f"c{i}" for i in range(n)] if cell_ids is None else cell_ids, dtype=object),
        config=Scgpt.model_validate(PARAMS.scgpt.model_dump() | changes),
        n_bins=51,
        vocabulary=SPECIAL,
        pad_value=-2,
    )


def cell(tokens: Tokens, row: int) -> dict[int, float]:
    part = slice(tokens.offsets[row], tokens.offsets[row + 1])
    return dict(zip(tokens.ids[part].tolist(), tokens.values[part].tolist(), strict=True))


def test_expressed_genes_with_a_token_become_tokens():
    tokens = tokens_of([[0, 3, 1, 2], [0, 0, 0, 0]], token_ids=[7, 8, -1, 9], value_input="binned")
    assert set(cell(tokens, 0)) == {8, 9}
    assert cell(tokens, 1) == {}


def test_log1p_by_hand():
    tokens = tokens_of([[1, 3, 7]], totals=[1e4], value_input="log1p")
    assert cell(tokens, 0) == pytest.approx({0: np.log(2), 1: np.log(4), 2: np.log(8)}, rel=1e-6)


@pytest.mark.parametrize("mode", ["binned", "binned_random"])
@settings(max_examples=40, deadline=None)
@given(counts=st.lists(st.integers(1, 10_000), min_size=2, max_size=120, unique=True))
def test_parity_with_scgpt_where_nothing_ties(mode, counts):
    """Distinct values leave nothing to draw: a value that one edge meets has one bin to go to."""
    row = np.log1p(np.array(counts) / sum(counts) * 1e4).astype(np.float32)
    found = np.array(list(cell(tokens_of([counts], value_input=mode), 0).values()))
    assert (found == binning(row, 51)).all()


@pytest.mark.parametrize("genes", [50, 8, 15, 99, 148])
def test_parity_where_edges_are_meant_to_meet_values(genes):
    """49 divides these sizes less one, or shares 7 with them: numpy's rounding then decides the bin."""
    rng = np.random.default_rng(genes)
    for _ in range(20):
        counts = rng.choice(5000, genes, replace=False) + 1
        row = np.log1p(counts / counts.sum() * 1e4).astype(np.float32)
        found = np.array(list(cell(tokens_of([counts], value_input="binned"), 0).values()))
        assert (found == binning(row, 51)).all()


@pytest.mark.parametrize("genes", [80, 50, 99, 148])
def test_random_bins_are_upstream_s_from_the_same_draw(genes, monkeypatch):
    rng = np.random.default_rng(genes)
    for i in range(20):
        counts = rng.integers(1, 12, genes)
        row = np.log1p(counts / counts.sum() * 1e4).astype(np.float32)
        ours = np.array(list(cell(tokens_of([counts], value_input="binned_random", cell_ids=[f"x{i}"]), 0).values()))
        draw = module._draws(np.array([f"x{i}"], dtype=object), np.array([genes]))
        monkeypatch.setattr(np.random, "rand", lambda n, draw=draw: draw)
        assert (ours == binning(row, 51)).all()
        assert len(np.unique(ours)) > 11, "ties were relative_variance"


@settings(max_examples=40, deadline=None)
@given(counts=st.lists(st.integers(1, 4), min_size=2, max_size=60), seed=st.integers(0, 1000))
def test_ties_lie_in_the_middle_of_what_scgpt_draws(counts, seed):
    row = np.log1p(np.array(counts) / sum(counts) * 1e4).astype(np.float32)
    np.random.seed(seed)  # noqa: NPY002  scgpt draws from the global state
    draws = np.array([binning(row, 51) for _ in range(200)])
    ours = np.array(list(cell(tokens_of([counts], value_input="binned"), 0).values()))
    low, high = draws.min(axis=0), draws.max(axis=0)
    assert (low <= ours).all()
    assert (ours <= high).all()
    width = np.maximum(high - low, 1)
    assert (np.abs(ours - draws.mean(axis=0)) <= 0.2 * width + 0.5).all()


def test_draws_are_the_published_generator_s(monkeypatch):
    """The first numbers of SplitMix64 from the seed 1234567, as Rosetta Code has them."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    monkeypatch.setattr(module, "_seed", {"a": 1234567, "b": 5}.__getitem__)
    found = module._draws(np.array(["b", "a"], dtype=object), np.array([3, 4]))
    assert found[3:].tolist() == [(number >> 11) / 2**53 for number in published]


def test_draws_are_even():
    found = module._draws(np.array([f"c{i}" for i in range(2000)], dtype=object), np.full(2000, 50))
    assert found.min() >= 0
    assert found.max() < 1
    assert kstest(found, "uniform").pvalue > 0.01
    assert kstest(found[::50], "uniform").pvalue > 0.01, "the first of each cell"
    assert abs(np.corrcoef(found.reshape(2000, 50).T) - np.eye(50)).max() < 0.12


def test_random_bins_are_drawn_by_cell_id():
    counts = [[1] * 30, [1] * 30]
    a = tokens_of(counts, value_input="binned_random", cell_ids=["x", "y"])
    b = tokens_of(counts[:1], value_input="binned_random", cell_ids=["y"])
    assert cell(a, 1) == cell(b, 0)
    assert cell(a, 0) != cell(a, 1)
    assert set(cell(tokens_of(counts, value_input="binned"), 0).values()) == {
        cell(tokens_of(counts, value_input="binned"), 1)[0]
    }


def test_zero_genes_are_tokens_if_configured():
    tokens = tokens_of([[0, 3, 0]], zero_genes=True, token_ids=[4, 5, -1], value_input="log1p")
    assert set(cell(tokens, 0)) == {4, 5}
    assert cell(tokens, 0)[4] == 0


@pytest.mark.parametrize("mode", ["binned", "binned_random", "log1p"])
def test_a_cell_s_tokens_do_not_depend_on_the_others(mode):
    rng = np.random.default_rng(0)
    counts = rng.poisson(1.0, (6, 40))
    names = [f"n{i}" for i in range(6)]
    together = tokens_of(counts, cell_ids=names, value_input=mode, max_tokens=15)
    assert together.lengths.max() == 15
    for row in range(6):
        alone = tokens_of(counts[[row]], cell_ids=[names[row]], value_input=mode, max_tokens=15)
        assert cell(alone, 0) == cell(together, row)


@pytest.mark.parametrize("mode", ["binned", "binned_random"])
def test_bins_do_not_depend_on_how_many_cells_are_binned_at_a_time(mode, monkeypatch):
    counts = np.random.default_rng(0).poisson(0.3, (40, 12))
    assert (counts.sum(axis=1) == 0).any(), "cells without counts stand between others"
    at_once = tokens_of(counts, value_input=mode)
    for entries in (1, 9, 31):
        monkeypatch.setattr(module, "TABLE", entries)
        assert np.array_equal(tokens_of(counts, value_input=mode).values, at_once.values)


def test_what_is_kept_of_a_large_cell_is_a_fair_choice():
    """Each gene is kept about as often as any other, over many cells."""
    tokens = tokens_of(np.ones((2000, 20)), max_tokens=5)
    times = np.bincount(tokens.ids, minlength=20)
    assert times.sum() == 10_000
    assert abs(times - 500).max() < 5 * np.sqrt(500 * 0.75)


def values(trained_on: ValueInput, fed: ValueInput) -> list[float]:
    architecture = small_architecture(PARAMS.pretrain, trained_on)
    vocabulary = small_vocabulary(GENES)
    checkpoint = ScgptCheckpoint(ScgptBackbone(architecture, vocabulary), vocabulary, architecture, None)
    params = PARAMS.model_copy(update={"scgpt": PARAMS.scgpt.model_copy(update={"value_input": fed})})
    return list(checkpoint.tokenizer(SCREEN, params)(SCREEN).values)


def test_an_encoder_trained_on_log1p_gets_log1p():
    assert values("log1p", "log1p") == pytest.approx(np.log([2, 4, 64, 2]), rel=1e-6)


@pytest.mark.parametrize(("trained_on", "fed"), [("log1p", "binned"), ("binned", "log1p")])
def test_an_encoder_reads_only_what_it_was_trained_on(trained_on, fed):
    with pytest.raises(InputError, match=f"scgpt.value_input is '{fed}'.*set scgpt.value_input={trained_on}"):
        values(trained_on, fed)
