"""What a library holds, and cosine similarity in blocks."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.stats import rankdata
from sklearn.metrics.pairwise import cosine_similarity

from reverse_perturbation.gpu import gpu
from reverse_perturbation.retrieval import library
from reverse_perturbation.retrieval.library import LibraryRanker
from reverse_perturbation.sections import Library

KINDS = ["bootstrap", "mean", "raw_cell", "raw_cell_vote"]


A, B, C = "A+ctrl", "B+ctrl", "C+ctrl"


def ranker(kind: str, similarity: str = "cosine", neighbours: int = 3, **settings: int) -> LibraryRanker:
    draws = {"prototypes": 7, "cells_per_prototype": 5, "seed": 42} | settings
    config = {"kind": kind, "similarity": similarity, "embedding": "plain", "neighbours": neighbours}
    return LibraryRanker(Library.model_validate(config | draws))


@pytest.fixture
def screen() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.choice(np.array(["C+ctrl", "A+ctrl", "A+B"], dtype=object), 60)
    return rng.standard_normal((60, 4)).astype(np.float32), labels, rng.standard_normal((11, 4))


def test_mean_and_raw_cell_by_hand():
    reference = np.array([[1, 0], [0, 1], [0, 2]], dtype=np.float32)
    labels = np.array(["A+ctrl", "A+ctrl", "B+ctrl"], dtype=object)
    query = np.array([[3.0, 0.0], [0.0, 0.5]])
    half = 1 / np.sqrt(2)
    mean, raw = (ranker(kind).fit(reference, labels) for kind in ("mean", "raw_cell"))
    assert mean.conditions.tolist() == raw.conditions.tolist() == ["A+ctrl", "B+ctrl"]
    assert mean.scores(query) == pytest.approx(np.array([[half, 0], [half, 1]]))
    assert raw.scores(query) == pytest.approx(np.array([[1, 0], [1, 1]])), "the nearest of its cells"


def test_raw_cell_against_scikit_learn(screen):
    reference, labels, queries = screen
    similarity = cosine_similarity(queries, reference)
    found = ranker("raw_cell").fit(reference, labels)
    for i, condition in enumerate(found.conditions):
        expected = similarity[:, labels == condition].max(axis=1)
        assert found.scores(queries)[:, i] == pytest.approx(expected, abs=1e-6)


def test_prototypes_are_means_of_the_conditions_own_cells():
    """The conditions lie on different axes, so a mean that mixed them would show."""
    reference = np.repeat(np.eye(3), 20, axis=0) * np.random.default_rng(0).uniform(1, 2, (60, 1))
    labels = np.repeat(np.array(["A+ctrl", "B+ctrl", "C+ctrl"], dtype=object), 20)
    assert ranker("bootstrap").fit(reference, labels).scores(np.eye(3)) == pytest.approx(np.eye(3), abs=1e-6)


def test_every_cell_of_a_condition_can_be_drawn():
    """Of 200 prototypes, one cell each, some are the first cell and some the last."""
    fitted = ranker("bootstrap", prototypes=200, cells_per_prototype=1).fit(np.eye(6), np.full(6, A))
    assert fitted.scores(np.eye(6)) == pytest.approx(1)


def test_prototypes_spread_as_bootstrap_means_do():
    """Each is a mean of 25 draws with replacement: their variance over prototypes is that of a cell over 25."""
    rng = np.random.default_rng(0)
    cells = np.column_stack([np.ones(400), 0.01 * rng.standard_normal(400)])  # nearly unit: angle = second axis
    fitted = ranker("bootstrap", prototypes=2000, cells_per_prototype=25).fit(cells, np.full(400, "A+ctrl"))
    assert fitted._library.shape == (2000, 2)
    assert fitted._library[:, 1].var() == pytest.approx(cells[:, 1].var() / 25, rel=0.15)


@pytest.mark.parametrize("kind", KINDS[:3])
def test_a_condition_does_not_depend_on_the_others(screen, kind):
    reference, labels, queries = screen
    whole = ranker(kind).fit(reference, labels)
    kept = labels != "C+ctrl"
    part = ranker(kind).fit(reference[kept], labels[kept])
    assert part.conditions.tolist() == whole.conditions.tolist()[:2] == ["A+B", "A+ctrl"]
    assert part.scores(queries) == pytest.approx(whole.scores(queries)[:, :2], abs=1e-6)


def test_the_seed_decides_the_draws(screen):
    reference, labels, queries = screen
    first, again, other = (ranker("bootstrap", seed=s).fit(reference, labels).scores(queries) for s in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any(axis=0).all()


def test_conditions_draw_independently():
    """Two conditions with the same cells do not get the same prototypes."""
    cells = np.random.default_rng(0).standard_normal((30, 4))
    labels = np.repeat(np.array(["A+ctrl", "B+ctrl"], dtype=object), 30)
    scores = ranker("bootstrap").fit(np.tile(cells, (2, 1)), labels).scores(cells)
    assert (scores[:, 0] != scores[:, 1]).all()


@pytest.mark.parametrize("kind", KINDS[:3])
def test_a_zero_vector_is_like_nothing(kind):
    reference = np.array([[0, 0], [0, 0], [1, 1]], dtype=np.float32)
    labels = np.array(["A+ctrl", "A+ctrl", "B+ctrl"], dtype=object)
    scores = ranker(kind).fit(reference, labels).scores(np.array([[0.0, 0.0], [2.0, 2.0]]))
    assert scores == pytest.approx(np.array([[0, 0], [0, 1]]))


LINE = np.array([[0.0, 0], [2, 0], [10, 0], [13, 0]])
ON_LINE = np.array([A, A, B, B], dtype=object)


def test_euclidean_by_hand():
    query = np.array([[3.0, 0.0], [1.0, 4.0]])
    mean, raw = (ranker(kind, "euclidean").fit(LINE, ON_LINE) for kind in ("mean", "raw_cell"))
    assert mean.conditions.tolist() == [A, B]
    assert mean.scores(query) == pytest.approx(-np.array([[2, 8.5], [4, np.hypot(10.5, 4)]]))
    assert raw.scores(query) == pytest.approx(-np.array([[1, 7], [17**0.5, 97**0.5]]))


def test_euclidean_and_cosine_disagree_where_lengths_do():
    reference, labels = np.array([[1.0, 0.0], [9.0, 3.0]]), np.array([A, B], dtype=object)
    query = np.array([[9.0, 0.0]])
    found = [ranker("raw_cell", s).fit(reference, labels).scores(query).argmax() for s in ("cosine", "euclidean")]
    assert found == [0, 1]


def test_votes_by_hand():
    """Of the query at 8 the three nearest are 10 (B), 13 (B) and 2 (A); of that at 1 they are 0, 2 (A) and 10 (B)."""
    found = ranker("raw_cell_vote", "euclidean").fit(LINE, ON_LINE).scores(np.array([[8.0, 0], [1.0, 0]]))
    assert found == pytest.approx(np.array([[1 + 0.5 / 7, 2 + 0.5 / 3], [2 + 0.5 / 2, 1 + 0.5 / 10]]))


def test_votes_by_cosine_by_hand():
    reference = np.array([[1.0, 0], [1, 1], [0, 1]])
    found = ranker("raw_cell_vote", "cosine", 2).fit(reference, np.array([A, B, C])).scores(np.array([[2.0, 0]]))
    assert found == pytest.approx(np.array([[1 + 2 / 4, 1 + (1 + 0.5**0.5) / 4, 0 + 1 / 4]]))


def test_cells_as_near_as_the_last_vote_too():
    reference, labels = np.array([[1.0, 0], [0, 2], [0, -2], [2, 0], [9, 9]]), np.array([A, B, C, C, B], dtype=object)
    found = ranker("raw_cell_vote", "euclidean", neighbours=2).fit(reference, labels).scores(np.zeros((1, 2)))
    assert np.floor(found).tolist() == [[1, 1, 2]]


def test_no_more_can_vote_than_there_are():
    found = ranker("raw_cell_vote", "euclidean", neighbours=9).fit(LINE, ON_LINE).scores(np.zeros((1, 2)))
    assert np.floor(found).tolist() == [[2, 2]]


def test_more_votes_outweigh_any_nearness():
    """Nearness is worth less than half a vote, so it decides between equals alone."""
    reference, labels = np.array([[0.0, 0], [50, 0], [51, 0]]), np.array([A, B, B], dtype=object)
    found = ranker("raw_cell_vote", "euclidean").fit(reference, labels).scores(np.zeros((1, 2)))
    assert found[0, 1] > found[0, 0]
    assert ranker("raw_cell", "euclidean").fit(reference, labels).scores(np.zeros((1, 2)))[0].argmax() == 0


@pytest.mark.parametrize(("similarity", "metric"), [("euclidean", "euclidean"), ("cosine", "cosine")])
def test_against_scipy_in_blocks_and_at_once(screen, monkeypatch, similarity, metric):
    reference, labels, queries = screen
    distance = cdist(queries, reference, metric)
    nearest = np.argsort(distance, axis=1)[:, :5]
    for block in (512, 3):
        monkeypatch.setattr(library, "BLOCK", block)
        fitted = ranker("raw_cell_vote", similarity, 5).fit(reference, labels)
        best, votes = fitted.search(queries)
        for i, condition in enumerate(fitted.conditions):
            expected = distance[:, labels == condition].min(axis=1)
            assert (1 - best if similarity == "cosine" else -best)[:, i] == pytest.approx(expected, abs=1e-5)
            assert (np.floor(votes[:, i]) == (labels[nearest] == condition).sum(axis=1)).all()
        assert best == pytest.approx(ranker("raw_cell", similarity).fit(reference, labels).scores(queries), abs=1e-6)


def test_distances_far_from_the_origin():
    """Squares of 1e4 would leave float32 nothing of a distance of 0.01."""
    reference, labels = np.array([[1e4, 0], [1e4 + 0.03125, 0]]), np.array([A, B], dtype=object)
    found = ranker("raw_cell", "euclidean").fit(reference, labels).scores(np.array([[1e4 + 0.0078125, 0]]))
    assert found == pytest.approx(-np.array([[0.0078125, 0.0234375]]), rel=1e-3)


@given(st.permutations(range(12)), st.integers(0, 5), st.sampled_from(["cosine", "euclidean"]), st.integers(1, 12))
def test_the_order_of_the_cells_does_not_matter(order, seed, similarity, neighbours):
    """Few different coordinates, so that cells tie; whole numbers, so that sums are exact."""
    rng = np.random.default_rng(seed)
    reference = rng.integers(-1, 2, (12, 2)).astype(float)
    labels = rng.choice(np.array([A, B, C], dtype=object), 12)
    queries = rng.integers(-1, 2, (4, 2)).astype(float)
    for kind in KINDS[1:]:
        one, other = (
            ranker(kind, similarity, neighbours).fit(reference[rows], labels[rows]).scores(queries)
            for rows in (np.arange(12), np.array(order))
        )
        assert one == pytest.approx(other, abs=1e-6)


@given(st.permutations(range(9)))
def test_the_order_of_the_queries_does_not_matter(order):
    rng = np.random.default_rng(0)
    fitted = ranker("raw_cell_vote", "euclidean").fit(rng.standard_normal((30, 3)), rng.choice(np.array([A, B]), 30))
    queries = rng.standard_normal((9, 3))
    assert fitted.scores(queries[order]) == pytest.approx(fitted.scores(queries)[order], abs=1e-6)


def test_prototypes_are_the_same_by_either_similarity(screen):
    """A query at a prototype has the distance 0 and the cosine 1 to it."""
    reference, labels, _ = screen
    kinds = [ranker("bootstrap", s).fit(reference, labels) for s in ("cosine", "euclidean")]
    vectors = kinds[1]._library[:, :-1] + kinds[1]._origin
    assert kinds[0].scores(vectors).max(axis=1) == pytest.approx(1, abs=1e-5)
    assert kinds[1].scores(vectors).max(axis=1) == pytest.approx(0, abs=2e-3)


@pytest.mark.parametrize("kind", ["raw_cell", "raw_cell_vote"])
@pytest.mark.parametrize("similarity", ["cosine", "euclidean"])
def test_memory_does_not_grow_with_the_number_of_queries(kind, similarity):
    """All nearness at once would be 8,000 x 4,000 floats, 128 MB."""
    rng = np.random.default_rng(0)
    reference, queries = rng.standard_normal((4000, 4)), rng.standard_normal((8000, 4))
    fitted = ranker(kind, similarity).fit(reference, np.repeat(np.array([A, B], dtype=object), 2000))
    tracemalloc.start()
    fitted.scores(queries)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6


@pytest.mark.parametrize("similarity", ["cosine", "euclidean"])
def test_every_cell_needs_a_label(similarity):
    with pytest.raises(ValueError, match="have 2 labels"):
        ranker("mean", similarity).fit(np.ones((3, 2)), np.full(2, A))


DEVICE = gpu() or torch.device("cpu")


def on_device_and_with_numpy(fitted: LibraryRanker, queries: np.ndarray, monkeypatch) -> list[tuple[np.ndarray, ...]]:
    """Search in blocks of 50 queries, and leave out the votes where there are none."""
    monkeypatch.setattr(library, "BLOCK", 50)
    monkeypatch.setattr(library, "gpu", lambda: None)
    found = fitted.search(queries, DEVICE), fitted.search(queries)
    assert [each is None for each in found[0]] == [each is None for each in found[1]]
    assert [each.dtype for each in found[0] if each is not None] == [
        each.dtype for each in found[1] if each is not None
    ]
    return [tuple(each for each in pair if each is not None) for pair in found]


def of_forty_conditions(rng: np.random.Generator) -> np.ndarray:
    """Of 1 to 40 cells each, 820 in all."""
    return rng.permutation(np.repeat([f"G{i}" for i in range(40)], np.arange(1, 41)))


@pytest.mark.parametrize("similarity", ["cosine", "euclidean"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_device_gives_the_same_ranks(monkeypatch, kind, similarity):
    rng = np.random.default_rng(0)
    fitted = ranker(kind, similarity, 9).fit(rng.standard_normal((820, 16)), of_forty_conditions(rng))
    ours, theirs = on_device_and_with_numpy(fitted, rng.standard_normal((120, 16)), monkeypatch)
    for a, b in zip(ours, theirs, strict=True):
        assert a == pytest.approx(b, abs=1e-5)
        assert (rankdata(a, axis=1) == rankdata(b, axis=1)).all()


@pytest.mark.parametrize("similarity", ["cosine", "euclidean"])
@pytest.mark.parametrize("kind", KINDS[2:])
def test_a_device_gives_the_same_ties(monkeypatch, kind, similarity):
    """Every sum is exact: corners of a cube around 0 of four dimensions, whose lengths are 2 and 4."""
    rng = np.random.default_rng(0)
    half = rng.choice([-1.0, 1.0], (410, 4)) * rng.choice([1.0, 2.0], (410, 1))
    fitted = ranker(kind, similarity, 9).fit(np.concatenate([half, -half]), of_forty_conditions(rng))
    ours, theirs = on_device_and_with_numpy(fitted, rng.choice([-1.0, 1.0], (120, 4)), monkeypatch)
    for a, b in zip(ours, theirs, strict=True):
        assert np.array_equal(a, b)
    if kind == "raw_cell_vote":
        assert (np.floor(theirs[1]).sum(axis=1) > 9).all(), "those level with the ninth vote too"


def test_the_gpu_is_taken_where_there_is_one(screen, monkeypatch):
    reference, labels, queries = screen
    fitted, places, search = ranker("raw_cell_vote").fit(reference, labels), [], library._search_on
    monkeypatch.setattr(library, "_search_on", lambda device, *args: places.append(device) or search(device, *args))
    for device in (None, DEVICE):
        monkeypatch.setattr(library, "gpu", lambda device=device: device)
        fitted.scores(queries)
        assert places == ([] if device is None else [DEVICE])
