"""The simulated screen: what it consists of, that it is what docs/simulator.md says, and that it stays small."""

import dataclasses
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import f_oneway, nbinom

from reverse_perturbation.conditions import canonical, genes_of, twins
from reverse_perturbation.data.screen.contract import write_cells
from reverse_perturbation.data.screen.genes import load_aliases, map_genes
from reverse_perturbation.data.screen.normalize import log1p_cp10k
from reverse_perturbation.errors import InputError
from reverse_perturbation.models.scgpt.encoder.vocabulary import default_vocabulary
from reverse_perturbation.prepare.h5ad import read_source
from reverse_perturbation.prepare.simulate import MODEL, _negative_binomial, simulate
from reverse_perturbation.prepare.simulate_plan import FLOOR, name_genes, plan_cells
from reverse_perturbation.sections import Simulated

NORMAN = Path(__file__).parents[2] / "data" / "norman_conditions.csv"
SMALL = pd.DataFrame(
    {
        "condition": ["A+ctrl", "ctrl+A", "B+ctrl", "A+B", "D+ctrl", "rare+ctrl", "ctrl"],
        "cells": [300, 100, 200, 200, 90, 49, 500],
    }
)
VOCABULARY = ["<pad>", *(f"GENE{i}" for i in range(400)), "A", "NEW1", "NEW2", "NEW3"]
ALIASES = {"OLD1": "NEW1", "OLD2": "NEW2", "OLD3": "NEW3", "OLDER1": "NEW1", "GENE7": "GENE8"}


def size(conditions: int = 5, cells: int = 1390, genes: int = 100, seed: int = 0) -> Simulated:
    return Simulated(n_conditions=conditions, n_cells=cells, n_genes=genes, seed=seed)


def small(config: Simulated | None = None, **options):
    return simulate(SMALL, config or size(), VOCABULARY, ALIASES, **options)


@pytest.fixture(scope="module")
def norman() -> pd.DataFrame:
    return pd.read_csv(NORMAN)


def test_the_table_is_that_of_the_real_file(norman, row_labels):
    real = pd.read_csv(row_labels)["condition"]
    table = norman.set_index("condition")["cells"]
    assert table.sum() == 91_205
    assert len(table) == 284
    assert table["ctrl"] == 7_353
    assert table["C3orf72+FOXL2"] == 49
    kept = table.drop(["ctrl", "C3orf72+FOXL2"])
    assert list(kept.index) == list(pd.unique(real)), "order of first appearance"
    assert kept.to_dict() == real.value_counts().to_dict()


def test_full_size_is_the_real_table(norman):
    plan = plan_cells(norman, size(conditions=282, cells=91_205, genes=5_045))
    pd.testing.assert_series_equal(plan, norman.set_index("condition")["cells"], check_names=False)


def test_default_size_keeps_the_most_frequent_conditions(norman):
    plan = plan_cells(norman, size(conditions=40, cells=6_000))
    assert plan.sum() == 6_000
    assert len(plan) == 41
    perturbed = plan.drop("ctrl")
    assert perturbed.min() >= FLOOR
    real = norman.set_index("condition")["cells"]
    assert {"CEBPE+RUNX1T1", "KLF1+ctrl", "TBX3+TBX2"} <= set(perturbed.index)
    assert plan["ctrl"] / plan["CEBPE+RUNX1T1"] == pytest.approx(7_353 / 1_030, rel=0.01)
    assert len(twins(perturbed.index)) >= 5
    for label in set(real.index) - set(plan.index):
        assert canonical(label) not in {canonical(kept) for kept in plan.index}, "twins are kept together"


def _cells_of(table, conditions):
    """The most cells that can be asked for, as the message for too many says."""
    with pytest.raises(InputError) as error:
        plan_cells(table, size(conditions=conditions, cells=100_000))
    return int(re.search(r"have (\d+) cells", str(error.value))[1])


def test_planned_by_hand():
    """Halved, but 100 and 90 are kept at 60, and 49 is all there is; 769 of the 1,439 cells."""
    plan = plan_cells(SMALL, size(cells=769))
    assert plan.to_dict() == {
        "A+ctrl": 150,
        "ctrl+A": 60,
        "B+ctrl": 100,
        "A+B": 100,
        "D+ctrl": 60,
        "rare+ctrl": 49,
        "ctrl": 250,
    }
    assert plan_cells(SMALL, size(cells=770)).sum() == 770
    assert "rare+ctrl" not in plan_cells(SMALL, size(conditions=4, cells=500)), "rare labels come in with all others"


def test_twins_are_skipped_where_only_one_fits():
    assert set(plan_cells(SMALL, size(conditions=2, cells=400)).index) == {"A+ctrl", "ctrl+A", "ctrl"}
    table = SMALL.assign(cells=[300, 100, 400, 200, 90, 49, 500])
    assert set(plan_cells(table, size(conditions=2, cells=400)).index) == {"B+ctrl", "A+B", "ctrl"}


@given(st.integers(2, 280), st.floats(0, 1))
@settings(deadline=None, max_examples=40)
def test_any_plan_keeps_its_promises(conditions, share):
    table = pd.read_csv(NORMAN)
    real = table.set_index("condition")["cells"]
    most = plan_cells(table, size(conditions=conditions, cells=_cells_of(table, conditions)))
    fewest = most.clip(upper=FLOOR).sum()
    cells = int(fewest + share * (most.sum() - fewest))
    plan = plan_cells(table, size(conditions=conditions, cells=cells))
    assert plan.sum() == cells
    assert len(plan) == conditions + 1
    assert (plan <= real[plan.index]).all()
    assert (plan >= np.minimum(real[plan.index], FLOOR)).all()
    assert list(plan.index) == [label for label in real.index if label in plan.index]


@pytest.mark.parametrize(
    ("table", "config", "said"),
    [
        (SMALL, size(cells=408), "data.simulated.n_cells: 408 are too few for 5 conditions.*split.min_cells.*409"),
        (SMALL, size(cells=1_500), "data.simulated.n_cells: 1500.*have 1439 cells"),
        (SMALL, size(conditions=6), "data.simulated.n_conditions: 6.*has 5 conditions"),
        (SMALL, size(genes=2), "data.simulated.n_genes: 2.*perturb 4 genes"),
        (SMALL, size(genes=1_000), "data.simulated.n_genes: 1000.*ask for at most"),
        (SMALL.iloc[:2], size(), "no row for control"),
        (SMALL.iloc[[0, 0, 6]], size(), "'A\\+ctrl' stands twice"),
        (SMALL.rename(columns={"cells": "n"}), size(), "needs columns condition and cells"),
        (SMALL.assign(cells=0.5), size(), "whole numbers"),
        (SMALL.assign(cells=0), size(), "whole numbers"),
        (SMALL.replace("A+B", "A+"), size(), "empty part"),
    ],
)
def test_wrong_input_is_named(table, config, said):
    with pytest.raises(InputError, match=said):
        simulate(table, config, VOCABULARY, ALIASES)


def test_names_at_full_size(norman):
    """Every target under its real name, a tenth outside the vocabulary, at least 95 % covered with aliases."""
    targets = sorted(set().union(*map(genes_of, norman["condition"])))
    aliases, vocabulary = load_aliases(), default_vocabulary()
    names = name_genes(targets, 5_045, list(vocabulary), aliases, np.random.default_rng(0))
    assert len(set(names)) == 5_045
    assert set(targets) <= set(names)
    assert {"C19orf26", "C3orf72", "ELMSAN1", "KIAA1804", "RHOXF2BB"} <= set(names)
    assert np.mean([name in vocabulary for name in names]) == pytest.approx(0.9, abs=0.001)
    assert len({aliases.get(name, name) for name in names}) == 5_045, "no gene under two names"
    match = map_genes(names, vocabulary, aliases)["match"]
    assert (match != "none").mean() >= 0.95
    assert (match == "alias").mean() > 0.04


def test_names_by_hand():
    """Of 40 names 4 are outside: the targets B and D, one renamed gene, one clone."""
    names = name_genes(["A", "B", "D"], 40, VOCABULARY, ALIASES, np.random.default_rng(0))
    outside = set(names) - set(VOCABULARY)
    assert {"B", "D"} < outside
    assert len(outside & set(ALIASES)) == 1
    (clone,) = outside - set(ALIASES) - {"B", "D"}
    assert clone.startswith("RP11-")
    assert not {"<pad>", "GENE7"} & set(names), "neither a special token nor another gene's old name"


def test_a_seed_fixes_every_bit_and_blocks_change_none():
    config = size(conditions=2, cells=200)
    first, again, other = small(config), small(config), small(size(conditions=2, cells=200, seed=1))
    for block in (7, 5_000):
        blocked = small(config, block=block)
        assert (blocked.layers["counts"] != first.layers["counts"]).nnz == 0
    assert (again.layers["counts"] != first.layers["counts"]).nnz == 0
    pd.testing.assert_frame_equal(again.obs, first.obs)
    assert list(again.var_names) == list(first.var_names)
    assert (other.layers["counts"] != first.layers["counts"]).nnz > 0
    assert list(other.var_names) != list(first.var_names)


def test_cells_satisfy_the_contract(tmp_path):
    cells = small()
    write_cells(tmp_path / "cells.h5ad", cells)
    checked = read_source(tmp_path / "cells.h5ad")
    assert (checked.layers["counts"] != cells.layers["counts"]).nnz == 0
    assert checked.obs["condition"].to_list() == cells.obs["condition"].to_list()
    counts = cells.layers["counts"]
    assert counts.dtype == np.float32
    assert counts.has_sorted_indices
    assert (counts.data >= 1).all()
    assert (counts.data == counts.data.round()).all()
    assert cells.X is None
    assert cells.uns["source"]["kind"] == "simulated"
    assert cells.obs["condition"].value_counts().to_dict() == plan_cells(SMALL, size()).to_dict()
    assert cells.obs["gem_group"].nunique() == 8
    runs = (cells.obs["condition"].to_numpy()[1:] != cells.obs["condition"].to_numpy()[:-1]).sum()
    assert runs > 800, "conditions are interleaved"


def test_counts_are_negative_binomial():
    mean = np.tile(np.array([0.02, 0.7, 6.0, 90.0], dtype=np.float32), (40_000, 1))
    shape = np.array([0.5, 3.0, 2.0, 4.0], dtype=np.float32)
    row, column, count = _negative_binomial(mean, shape, np.random.default_rng(1))
    drawn = np.zeros(mean.shape)
    drawn[row, column] = count
    for j in range(4):
        m, r = float(mean[0, j]), float(shape[j])
        variance = m + m**2 / r
        assert drawn[:, j].mean() == pytest.approx(m, abs=4 * np.sqrt(variance / 40_000))
        for k in (0, 1, 3, 100):
            p = nbinom.pmf(k, r, r / (r + m))
            assert (drawn[:, j] == k).mean() == pytest.approx(p, abs=4 * np.sqrt(p / 40_000) + 1e-4)


def test_a_mean_beyond_inversion_is_refused():
    with pytest.raises(ValueError, match="too large for its shape"):
        _negative_binomial(np.full((1, 1), 5e3, np.float32), np.array([1e4], np.float32), np.random.default_rng(0))


def test_genes_are_long_tailed_and_overdispersed():
    cells = simulate(SMALL, size(genes=300), VOCABULARY, ALIASES)
    control = cells.layers["counts"][cells.obs["control"].to_numpy()].toarray()
    mean, variance = control.mean(axis=0), control.var(axis=0)
    expressed = mean > 1
    assert np.median(variance[expressed] / mean[expressed]) > 1.5, "more than Poisson"
    assert np.sort(mean)[-30:].sum() > 0.7 * mean.sum(), "a tenth of the genes has most of the counts"
    assert np.percentile(control.sum(axis=1), 50) == pytest.approx(2_971, rel=0.1)


def test_targets_rise_where_they_are_activated():
    """Also in doubles and in both twins, and nowhere else."""
    cells = simulate(SMALL, size(genes=300), VOCABULARY, ALIASES)
    counts = cells.layers["counts"]
    expression = log1p_cp10k(counts, np.asarray(counts.sum(axis=1)).ravel())
    labels = cells.obs["condition"].to_numpy(dtype=str)
    for target, column in ((t, cells.var_names.get_loc(t)) for t in ("A", "B", "D")):
        mean = pd.Series(expression[:, column].toarray().ravel()).groupby(labels).mean()
        activated = np.array([target in genes_of(label) for label in mean.index])
        assert mean[activated].min() > 1.5 * mean[~activated].max()


def test_library_sizes_do_not_tell_the_condition():
    cells = small()
    sizes = np.asarray(cells.layers["counts"].sum(axis=1)).ravel()
    groups = [np.log(sizes[cells.obs["condition"] == name]) for name in cells.obs["condition"].unique()]
    assert f_oneway(*groups).pvalue > 0.01


def test_twins_share_one_effect_and_doubles_are_not_merely_additive():
    """In a model without chance differences between cells, pseudo-bulks show the effects themselves."""
    still = dataclasses.replace(MODEL, weakness=0.0, cycle_effect=0.0, lane_effect=0.0, dispersion_shape=30.0)
    table = SMALL.assign(cells=1_000)
    config = size(conditions=6, cells=7_000, genes=100)
    effect = {}
    for interaction in (0.0, 1.0):
        cells = simulate(table, config, VOCABULARY, ALIASES, model=dataclasses.replace(still, interaction=interaction))
        bulk = pd.DataFrame(
            {
                c: cells.layers["counts"][(cells.obs["condition"] == c).to_numpy()].sum(axis=0).A1
                for c in table["condition"]
            }
        )
        seen = bulk["ctrl"] > 2_000
        logs = np.log(bulk[seen] / bulk[seen].sum())
        effect[interaction] = logs.sub(logs["ctrl"], axis=0).sub(logs.sub(logs["ctrl"], axis=0).median(), axis=1)
    without, with_ = effect[0.0], effect[1.0]
    assert without["A+ctrl"].abs().max() > 0.3
    assert (without["A+ctrl"] - without["ctrl+A"]).abs().max() < 0.1
    assert (without["A+ctrl"] - without["B+ctrl"]).abs().max() > 0.3
    additive = without["A+ctrl"] + without["B+ctrl"]
    assert (without["A+B"] - additive).abs().max() < 0.15
    assert (with_["A+B"] - additive).abs().max() > 0.3


def test_weakness_makes_perturbed_cells_like_control():
    distance = []
    for weakness in (0.0, 3.0):
        cells = small(model=dataclasses.replace(MODEL, weakness=weakness))
        column = cells.var_names.get_loc("A")
        own = (cells.obs["condition"] == "A+ctrl").to_numpy()
        distance.append(cells.layers["counts"][own, column].mean())
    assert distance[0] > 2 * distance[1]


def test_no_dense_matrix():
    """7,000 cells x 3,000 genes would be 84 MB dense in float32."""
    table = SMALL.assign(cells=1_000)
    vocabulary = [f"GENE{i}" for i in range(3_000)]
    tracemalloc.start()
    try:
        cells = simulate(table, size(conditions=6, cells=7_000, genes=3_000), vocabulary, {})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    counts = cells.layers["counts"]
    stored = counts.data.nbytes + counts.indices.nbytes + counts.indptr.nbytes
    assert peak < 3 * stored
    assert peak < 84e6 / 1.5
