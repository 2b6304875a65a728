"""Principal components of sparse cells are those of dense ones, and cost no dense matrix."""

import json
import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.decomposition import PCA

from reverse_perturbation.errors import InputError
from reverse_perturbation.models.baselines.pca import Baseline, Config, Pca


@pytest.fixture
def expression() -> sp.csr_matrix:
    rng = np.random.default_rng(0)
    values = rng.random((80, 30)) * (rng.random((80, 30)) < 0.3) * np.linspace(3, 0.5, 30)
    return sp.csr_matrix(values.astype(np.float32))


def test_against_the_full_decomposition(expression):
    dense = expression.toarray().astype(np.float64)
    expected = PCA(5, svd_solver="full").fit(dense).transform(dense)
    found = Pca(Config(components=5, seed=0)).fit(expression).embed(expression)
    assert found.dtype == np.float32
    assert found == pytest.approx(expected, abs=1e-4), "signs included"
    assert found.mean(axis=0) == pytest.approx(np.zeros(5), abs=1e-5), "centred on the cells it was fitted on"


def test_the_starting_vector_does_not_decide_the_sign(expression):
    embeddings = [Pca(Config(components=5, seed=s)).fit(expression).embed(expression) for s in range(6)]
    for other in embeddings[1:]:
        assert other == pytest.approx(embeddings[0], abs=1e-4)


def test_the_largest_weight_is_positive(expression):
    components = Pca(Config(components=5, seed=0)).fit(expression)._components
    assert (components[np.arange(5), np.abs(components).argmax(axis=1)] > 0).all()


def test_only_the_fitted_cells_matter(expression):
    model = Pca(Config(components=3, seed=0)).fit(expression[:60])
    assert model.embed(expression[60:]) == pytest.approx(model.embed(expression)[60:], abs=1e-5)
    everything = Pca(Config(components=3, seed=0)).fit(expression)
    assert np.abs(everything.embed(expression) - model.embed(expression)).max() > 1e-3


def test_no_dense_matrix():
    """Dense, the cells would be 20,000 x 2,000 x 8 bytes, 320 MB."""
    rng = np.random.default_rng(0)
    cells = sp.random_array((20_000, 2_000), density=0.002, rng=rng, dtype=np.float32).tocsr()
    tracemalloc.start()
    Pca(Config(components=3, seed=0)).fit(cells).embed(cells)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6


def test_save_and_load(tmp_path, expression):
    model = Pca(Config(components=4, seed=1)).fit(expression)
    model.save(tmp_path / "m", genes=[f"g{i}" for i in range(30)])
    found = Pca.load(tmp_path / "m")
    assert (found.embed(expression) == model.embed(expression)).all()
    assert found.config == model.config
    assert json.loads((tmp_path / "m" / "config.json").read_text())["genes"][0] == "g0"


@pytest.mark.parametrize("broken", ["config.json", "weights.safetensors"])
def test_a_broken_model(tmp_path, expression, broken):
    Pca(Config(components=4, seed=1)).fit(expression).save(tmp_path / "m", genes=[f"g{i}" for i in range(30)])
    path = tmp_path / "m" / broken
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="m: not saved weights"):
        Pca.load(tmp_path / "m")
    path.unlink()
    with pytest.raises(InputError, match=broken):
        Pca.load(tmp_path / "m")


def test_more_components_than_cells(expression):
    with pytest.raises(InputError, match=r"pca\.components: 10, but the reference has 10 cells of 30 genes"):
        Pca(Config(components=10, seed=0)).fit(expression[:10])


def test_the_baseline_embeds_all_cells_by_components_of_those_it_was_fitted_on(screen, tmp_path):
    baseline, expression = Baseline(Config(components=3, seed=0)), screen.log1p()
    for rows in (screen.rows("reference"), screen.rows("reference", "validation")):
        baseline.fit(screen, rows)
        found = baseline.predict(screen)
        dense = expression.toarray().astype(np.float64)
        expected = PCA(3, svd_solver="full").fit(dense[rows]).transform(dense)
        assert found.embedding == pytest.approx(expected, abs=1e-4)
        assert found.log_proba is None
        assert found.conditions is None
    baseline.save(tmp_path / "m", screen)
    assert (Pca.load(tmp_path / "m").embed(expression) == found.embedding).all()
