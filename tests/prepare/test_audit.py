"""The audit's figures on cells counted by hand, and its bins against scGPT's rule."""

import json
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from reverse_perturbation.data.screen.contract import write_cells
from reverse_perturbation.prepare.audit import N_BINS, audit, possible_bins
from reverse_perturbation.prepare.h5ad import read_source
from reverse_perturbation.stages.audit import main

ROOT = Path(__file__).parents[2]
GENES = ["A", "CBARP", "X", "Y", "Z"]
COUNTS = np.array(
    [
        [1, 1, 1, 1, 2],
        [0, 3, 0, 0, 0],
        [1, 1, 1, 1, 2],
        [0, 0, 0, 0, 0],
        [4, 0, 5, 0, 0],
        [0, 0, 0, 0, 8],
    ]
)
LABELS = ["A+ctrl", "ctrl+A", "C19orf26+ctrl", "A+NOTHERE", "ctrl+A", "ctrl"]


def cells(**obs) -> ad.AnnData:
    frame = pd.DataFrame({"condition": LABELS, "control": [x == "ctrl" for x in LABELS]} | obs)
    frame.index = [f"c{i}" for i in range(len(LABELS))]
    source = {"kind": "simulated", "description": "made up", "layers": ["counts"], "counts_dtype": "float32"}
    return ad.AnnData(
        obs=frame,
        var=pd.DataFrame({"gene_name": GENES}, index=GENES),
        layers={"counts": sp.csr_matrix(COUNTS.astype(np.float32))},
        uns={"source": source},
    )


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        # 50 edges at the quantiles k/49. Of five values the k-th edge lies at place 4k/49 of the sorted cell: edges 0
        # to 36 equal the value that comes four times, which may so get bins 1 to 37; only the last equals the largest.
        ([1, 1, 1, 1, 2], [1, 1, 1, 1, 50], [37, 37, 37, 37, 50]),
        ([2, 1, 1, 1, 1], [50, 1, 1, 1, 1], [50, 37, 37, 37, 37]),
        ([1, 2], [1, 50], [1, 50]),
        ([3], [1], [50]),
        ([2, 2, 2], [1, 1, 1], [50, 50, 50]),
    ],
)
def test_bins_by_hand(values, low, high):
    bins = possible_bins(sp.csr_matrix([values], dtype=np.float32))
    assert bins.low.tolist() == low
    assert bins.high.tolist() == high


def upstream(values: np.ndarray, draw: np.ndarray) -> np.ndarray:
    """Bin one cell's non-zero values as scgpt.preprocess.binning does, with its uniform numbers given."""
    edges = np.quantile(values, np.linspace(0, 1, N_BINS - 1))
    left, right = np.digitize(values, edges), np.digitize(values, edges, right=True)
    return np.ceil(draw * (right - left) + left).astype(int)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=60))
def test_bins_are_all_that_upstream_may_draw(values):
    row = np.log1p(np.array(values, dtype=np.float32))
    bins = possible_bins(sp.csr_matrix(row[None]))
    share = np.full(len(row), 1e-9)
    assert upstream(row, share).tolist() == bins.high.tolist(), "a draw near 0 gives the highest bin"
    assert upstream(row, 1 - share).tolist() == bins.low.tolist(), "a draw near 1 gives the lowest"
    assert bins.occupancy().sum() == pytest.approx(1)


def test_expected_occupancy_is_upstreams_average():
    rng = np.random.default_rng(0)
    row = np.log1p(rng.geometric(0.5, 40).astype(np.float32))
    drawn = np.concatenate([upstream(row, rng.random(len(row))) for _ in range(4000)])
    seen = np.bincount(drawn, minlength=N_BINS)[1:] / len(drawn)
    assert possible_bins(sp.csr_matrix(row[None])).occupancy() == pytest.approx(seen, abs=0.002)


def test_occupancy_by_hand():
    share = possible_bins(sp.csr_matrix([[1, 1, 1, 1, 2]], dtype=np.float32)).occupancy()
    assert share[:37] == pytest.approx(np.full(37, 0.8 / 37))
    assert share[37:49] == pytest.approx(np.zeros(12))
    assert share[49] == pytest.approx(0.2)


def test_figures_by_hand():
    found = audit(cells()).metrics
    assert (found["cells"], found["genes"], found["control_cells"]) == (6, 5, 1)
    assert found["detected_genes"] == 5
    assert found["empty_cells"] == 1
    # 14 non-zero values: eight 1, two 2, and 3, 4, 5, 8.
    assert found["counts"] == {
        "dtype": "float32",
        "integer_share": 1.0,
        "ones_share": 8 / 14,
        "nonzero_mean": pytest.approx(32 / 14),
        "max": 8.0,
        "nonzero_share": 14 / 30,
    }
    # Libraries 6, 3, 6, 0, 9, 8; genes 5, 1, 5, 0, 2, 1.
    assert found["depth"]["p50"] == 6
    assert found["depth"]["p95"] == pytest.approx(8.75)
    assert found["depth"]["variation"] == pytest.approx(np.std([6, 3, 6, 0, 9, 8]) / (32 / 6))
    assert found["expressed_genes"]["p50"] == 1.5
    assert found["conditions"] == {"legacy": 4, "canonical": 3, "cells_min": 1, "cells_median": 1.0, "cells_max": 2}
    assert found["twins"] == {"perturbations": 1, "labels": 2, "cells_share": 3 / 5}
    assert found["targets"] == {
        "named": 3,
        "measured": 1,
        "measured_under_alias": {"C19orf26": "CBARP"},
        "not_measured": ["NOTHERE"],
    }
    assert found["identical_cells"] == {"cells": 2, "vectors": 1, "vectors_in_several_conditions": 1}


def test_binning_figures_by_hand():
    found = audit(cells()).metrics["binning"]
    # Tied: the eight 1. Drawn: these (37 bins each) and the only values of their cells, 3 and 8 (50 bins each).
    assert found["tied_share"] == 8 / 14
    assert found["drawn_share"] == 10 / 14
    assert found["same_bin_twice"] == pytest.approx((8 / 37 + 2 / 50 + 4) / 14)
    assert (found["count_of_one_low"], found["count_of_one_high"]) == (1, 37)


def test_library_sizes_of_the_assay_stand_beside_those_of_the_file():
    found = audit(cells(total_counts=np.full(6, 100, dtype=np.float32))).metrics
    assert found["depth"] == {"p5": 100, "p50": 100, "p95": 100, "variation": 0}
    assert found["umis_in_file"]["p50"] == 6


def test_plot_rows():
    plots = audit(cells()).plots
    assert plots["cells_per_condition"].to_numpy().tolist() == [
        ["ctrl+A", 2],
        ["A+NOTHERE", 1],
        ["A+ctrl", 1],
        ["C19orf26+ctrl", 1],
    ]
    assert plots["depth"]["cells"].sum() == 6
    assert plots["bin_occupancy"]["bin"].tolist() == list(range(1, 51))
    assert plots["bin_occupancy"]["share"].sum() == pytest.approx(1)


def arguments(folder: Path, prepared: ad.AnnData) -> list[str]:
    write_cells(folder / "cells.h5ad", prepared)
    names = {"--cells": "cells.h5ad", "--metrics": "audit.json", "--plots": "plots", "--report": "audit.md"}
    paths = [part for option, name in names.items() for part in (option, str(folder / name))]
    return ["--params", str(ROOT / "params.yaml"), *paths]


def test_the_stage_says_what_is_simulated(tmp_path):
    main(arguments(tmp_path, cells()))
    assert json.loads((tmp_path / "audit.json").read_text())["source"]["kind"] == "simulated"
    report = (tmp_path / "audit.md").read_text()
    assert "**Simulated data" in report
    assert "C19orf26 (as CBARP); not measured: NOTHERE." in report
    assert "2 cells have exactly the counts of another; 1 of these 1 patterns" in report
    written = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert written == ["bin_occupancy.csv", "cells_per_condition.csv", "depth.csv"]
    assert (tmp_path / "plots" / "cells_per_condition.csv").read_text().startswith("condition,cells\nctrl+A,2\n")


def test_the_stage_on_the_real_subset(tmp_path, norman_subset):
    main(arguments(tmp_path, read_source(norman_subset)))
    found = json.loads((tmp_path / "audit.json").read_text())
    assert (found["cells"], found["genes"], found["detected_genes"]) == (3375, 500, 250)
    assert found["conditions"]["legacy"] == found["conditions"]["canonical"] == 33
    assert found["expressed_genes"]["p50"] == 15
    assert found["targets"]["named"] == 31
    assert found["targets"]["measured"] == 1
    assert "TMSB4X" not in found["targets"]["not_measured"]
    assert found["binning"]["tied_share"] == pytest.approx(0.724, abs=0.001)
    report = (tmp_path / "audit.md").read_text()
    assert "Simulated" not in report
    assert "In 100.0% of its first 3,375 cells it is log1p of the counts" in report
