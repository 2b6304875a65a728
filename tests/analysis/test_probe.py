"""Planted leaks are found, and where nothing is to be seen nothing is found."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from reverse_perturbation.analysis import probe
from reverse_perturbation.analysis.probe import features, fit_probe, leaks, probe_mask
from reverse_perturbation.data.screen.mask import MaskedCounts, apply_mask
from reverse_perturbation.metrics import registry
from reverse_perturbation.metrics.registry import Metric

CONDITIONS = ["A+ctrl", "B+ctrl", "A+B"]
N = 600
MASKS = ("none", "own", "all_targets")


@pytest.fixture
def screen() -> tuple[ad.AnnData, np.ndarray]:
    """Genes A and B are high where they are targets, X and Y are noise; two thirds of the cells are reference."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(CONDITIONS, N // 3)).astype(object)
    counts = rng.poisson(3.0, (N, 4))
    for column, gene in enumerate("AB"):
        counts[:, column] += 9 * np.array([gene in label for label in labels])
    obs = pd.DataFrame({"condition": labels, "control": False}, index=[f"c{i}" for i in range(N)])
    var = pd.DataFrame(index=list("ABXY"))
    cells = ad.AnnData(obs=obs, var=var, layers={"counts": sp.csr_matrix(counts.astype(np.float32))})
    return cells, np.where(np.arange(N) < 2 * N // 3, "reference", "query").astype(object)


def found(screen, mask):
    cells, parts = screen
    return probe_mask(cells, np.arange(N), cells.obs["condition"].to_numpy(dtype=object), parts, mask)


def test_the_masks_leak_what_they_are_known_to_leak(screen):
    everything = {mask: found(screen, mask) for mask in MASKS}
    assert everything["none"]["targets"]["exact_hit@1"]["found"] > 0.9
    assert everything["own"]["zeros"]["exact_hit@1"]["found"] > 0.8, "a target above zero is not in the label"
    for name in ("targets", "zeros"):
        of = everything["all_targets"][name]
        assert of["at_chance"]
        assert of["exact_hit@1"]["found"] == pytest.approx(of["exact_hit@1"]["chance"], abs=0.1)
        assert everything["all_targets"]["gem_group"] is None
    assert leaks(everything) == []


def test_a_mask_that_misses_a_gene_is_caught(screen, monkeypatch):
    def forgetful(cells, mask):
        masked = apply_mask(cells, mask)
        counts = masked.counts.tolil()
        counts[:, 1] = cells.layers["counts"][:, 1]
        return MaskedCounts(counts.tocsr(), masked.totals)

    monkeypatch.setattr(probe, "apply_mask", forgetful)
    assert "all_targets: targets" in leaks({mask: found(screen, mask) for mask in MASKS})


def test_a_leak_is_caught_by_a_metric_of_which_less_is_better(screen, monkeypatch):
    """The rank of the truth: at a leak its gap to chance is below zero, and without one it is not."""
    rank = Metric(
        "rank", "lower", "rank of the truth", lambda ranking: ranking.rank, lambda candidates: (candidates.n + 1) / 2
    )
    monkeypatch.setitem(registry.REGISTRY, "rank", rank)
    monkeypatch.setattr(probe, "METRICS", ("rank",))
    leaking, clean = found(screen, "none")["targets"], found(screen, "all_targets")["targets"]
    assert leaking["rank"]["high"] < 0
    assert not leaking["at_chance"]
    assert clean["at_chance"]


def test_worse_than_chance_is_no_leak():
    """Queries whose labels are turned round are missed more often than by chance."""
    labels = np.array(["A+ctrl", "B+ctrl"] * 100, dtype=object)
    seen = sp.csr_matrix((labels == "A+ctrl").astype(np.float32)[:, None])
    parts = np.repeat(["reference", "query"], 100).astype(object)
    turned = np.where(parts == "query", labels[::-1], labels)
    of = fit_probe(seen, turned, parts)
    assert of["mrr"]["high"] < 0
    assert of["at_chance"]


def test_a_label_in_the_library_size_is_caught(screen):
    cells, _ = screen
    assert found(screen, "all_targets")["depth"]["at_chance"]
    code = cells.obs["condition"].map({name: i for i, name in enumerate(CONDITIONS)}).astype(int)
    cells.obs["total_counts"] = (1000 * 4.0**code).astype(np.float32)
    of = found(screen, "all_targets")["depth"]
    assert not of["at_chance"]
    assert of["exact_hit@1"]["found"] > 0.95


def test_what_a_probe_is_given_of_known_cells_does_not_depend_on_the_others(screen):
    cells, parts = screen
    known = np.flatnonzero(parts != "query")
    masked = apply_mask(cells, "all_targets")
    totals = masked.totals.copy()
    totals[parts == "query"] *= 100
    seen = [features(cells, MaskedCounts(masked.counts, each), known)["depth"] for each in (masked.totals, totals)]
    assert (seen[0][known] != seen[1][known]).nnz == 0


def test_a_probe_is_not_fitted_on_the_queries():
    """A column for each cell: who has seen the queries' labels knows them all, who has not knows none."""
    labels = np.random.default_rng(0).choice(["A+ctrl", "B+ctrl"], 80).astype(object)
    of = fit_probe(
        sp.identity(80, dtype=np.float32, format="csr"), labels, np.array(["reference", "query"] * 40, dtype=object)
    )
    assert of["exact_hit@1"]["found"] == of["exact_hit@1"]["chance"]


def test_a_label_in_the_gem_group_is_caught(screen):
    cells, _ = screen
    cells.obs["gem_group"] = np.where(cells.obs["condition"] == "A+B", "1", "2")
    of = found(screen, "all_targets")["gem_group"]
    assert not of["at_chance"]


def test_chance_is_the_most_frequent_condition():
    """Of the queries one in four has it: a probe that sees nothing is at chance, not above, for naming it."""
    labels = np.array(["A+ctrl"] * 30 + ["B+ctrl"] * 10 + ["A+ctrl", "B+ctrl", "B+ctrl", "B+ctrl"], dtype=object)
    parts = np.array(["reference"] * 40 + ["query"] * 4, dtype=object)
    of = fit_probe(sp.csr_matrix((44, 2), dtype=np.float32), labels, parts)
    assert of["exact_hit@1"] == {"found": 0.25, "chance": 0.25, "low": 0.0, "high": 0.0}
    assert of["mrr"]["chance"] == pytest.approx((1 + 3 * 0.5) / 4)
    assert of["at_chance"]
