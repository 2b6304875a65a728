"""What a library holds, and cosine similarity in blocks."""

import tracemalloc

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from reverse_perturbation.retrieval import library
from reverse_perturbation.retrieval.library import LibraryRanker

KINDS = ["bootstrap", "mean", "raw_cell"]


def ranker(kind: str, prototypes: int = 7, cells: int = 5, seed: int = 42) -> LibraryRanker:
    return LibraryRanker(kind, prototypes=prototypes, cells_per_prototype=cells, seed=seed)


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


def test_prototypes_spread_as_bootstrap_means_do():
    """Each is a mean of 25 draws with replacement: their variance over prototypes is that of a cell over 25."""
    rng = np.random.default_rng(0)
    cells = np.column_stack([np.ones(400), 0.01 * rng.standard_normal(400)])  # nearly unit: angle = second axis
    fitted = ranker("bootstrap", prototypes=2000, cells=25).fit(cells, np.full(400, "A+ctrl"))
    assert fitted._library.shape == (2000, 2)
    assert fitted._library[:, 1].var() == pytest.approx(cells[:, 1].var() / 25, rel=0.15)


@pytest.mark.parametrize("kind", KINDS)
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


@pytest.mark.parametrize("kind", KINDS)
def test_a_zero_vector_is_like_nothing(kind):
    reference = np.array([[0, 0], [0, 0], [1, 1]], dtype=np.float32)
    labels = np.array(["A+ctrl", "A+ctrl", "B+ctrl"], dtype=object)
    scores = ranker(kind).fit(reference, labels).scores(np.array([[0.0, 0.0], [2.0, 2.0]]))
    assert scores == pytest.approx(np.array([[0, 0], [0, 1]]))


def test_blocks_give_what_one_product_gives(screen, monkeypatch):
    reference, labels, queries = screen
    whole = ranker("raw_cell").fit(reference, labels).scores(queries)
    monkeypatch.setattr(library, "BLOCK", 3)
    assert ranker("raw_cell").fit(reference, labels).scores(queries) == pytest.approx(whole, abs=1e-6)


def test_memory_does_not_grow_with_the_number_of_queries():
    """All similarities at once would be 8,000 x 4,000 floats, 128 MB."""
    rng = np.random.default_rng(0)
    reference, queries = rng.standard_normal((4000, 4)), rng.standard_normal((8000, 4))
    fitted = ranker("raw_cell").fit(reference, np.repeat(np.array(["A+ctrl", "B+ctrl"], dtype=object), 2000))
    tracemalloc.start()
    fitted.scores(queries)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6


@pytest.mark.parametrize("n", [0, 2])
def test_every_cell_needs_a_label(n):
    with pytest.raises(ValueError, match=f"have {n} labels"):
        ranker("mean").fit(np.ones((n and 3, 2)), np.full(n, "A+ctrl"))
