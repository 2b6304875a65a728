"""Holm's correction over the declared family by hand, and each finding."""

import numpy as np
import pytest

from reverse_perturbation.comparison import headline as module
from reverse_perturbation.comparison.headline import headline
from reverse_perturbation.comparison.significance import Differences, Gap
from reverse_perturbation.sections import Compare

CONFIG = Compare(draws=999, seed=0)


def split(values, n_seeds: int = 1) -> list[Differences]:
    """One split of one condition, its differences the same under every seed."""
    values = np.array([values] * n_seeds, dtype=np.float64)
    cells = np.array([f"c{i}" for i in range(values.shape[1])], dtype=object)
    return [Differences(values, cells, np.full(values.shape[1], "A+ctrl", dtype=object))]


def found_for(monkeypatch, gaps: dict[str, Gap], margin: float = 0.05, base: float = 0.4) -> dict:
    """Run the tests of one model against baselines, with these gaps."""
    splits = {("scgpt", name): split([0.0]) for name in gaps}
    known = {id(of_pair): gap for of_pair, gap in zip(splits.values(), gaps.values(), strict=True)}
    monkeypatch.setattr(module, "bootstrap", lambda splits, **_: known[id(splits)])
    return headline(splits, dict.fromkeys(splits, base), CONFIG, margin)["scgpt"]


def gap(mean: float, p: float, half: float = 0.1) -> Gap:
    return Gap(mean, mean - half, mean + half, mean - half, mean + half, p)


def test_holm_by_hand(monkeypatch):
    """The least p times 3, the next times 2, the last times 1, and none below one before it; at most 1."""
    found = found_for(monkeypatch, {"a": gap(0.1, 0.02), "b": gap(0.1, 0.012), "c": gap(0.1, 0.03)})
    assert {name: row["p"] for name, row in found.items()} == {"a": 0.02, "b": 0.012, "c": 0.03}
    corrected = {name: row["p_holm"] for name, row in found.items()}
    assert corrected == pytest.approx({"a": 2 * 0.02, "b": 3 * 0.012, "c": 2 * 0.02})
    found = found_for(monkeypatch, {"a": gap(0.1, 0.9), "b": gap(0.1, 0.6), "c": gap(0.1, 0.001)})
    assert [row["p_holm"] for row in found.values()] == pytest.approx([1, 1, 0.003])


def test_the_family_is_of_all_models_and_baselines(monkeypatch):
    """Two models and two baselines are four tests."""
    pairs = [(model, name) for model in ("scgpt", "fusion") for name in ("logreg", "lda")]
    splits = {pair: split([0.0]) for pair in pairs}
    known = {id(of_pair): gap(0.1, p) for of_pair, p in zip(splits.values(), (0.01, 0.02, 0.5, 0.5), strict=True)}
    monkeypatch.setattr(module, "bootstrap", lambda splits, **_: known[id(splits)])
    found = headline(splits, dict.fromkeys(pairs, 0.4), CONFIG, 0.05)
    assert {model: list(of_model) for model, of_model in found.items()} == {
        "scgpt": ["logreg", "lda"],
        "fusion": ["logreg", "lda"],
    }
    assert found["scgpt"]["logreg"]["p_holm"] == pytest.approx(4 * 0.01)
    assert found["scgpt"]["lda"]["p_holm"] == pytest.approx(3 * 0.02)
    assert [row["finding"] for row in found["scgpt"].values()] == ["ahead", "open"]


@pytest.mark.parametrize(
    ("mean", "p", "half", "finding"),
    [
        (0.03, 0.049, 0.03, "ahead"),
        (-0.03, 0.049, 0.03, "behind"),
        (0.03, 0.051, 0.03, "open"),
        (-0.03, 0.051, 0.03, "open"),
        (0.001, 0.9, 0.018, "equivalent"),
        (0.001, 0.9, 0.02, "open"),
        (-0.005, 0.001, 0.004, "behind"),  # a difference that is shown, be it small
    ],
)
def test_every_finding_is_reached(monkeypatch, mean, p, half, finding):
    """Equivalent is within 5 % of the baseline's 0.4, that is 0.02."""
    (row,) = found_for(monkeypatch, {"logreg": gap(mean, p, half)}).values()
    assert row["finding"] == finding
    assert (row["gap"], row["low"], row["high"]) == (mean, mean - half, mean + half)


def test_the_margin_is_a_share_of_the_baselines_mrr(monkeypatch):
    near = gap(0.0, 1.0, half=0.015)
    found = [found_for(monkeypatch, {"logreg": near}, margin, base)["logreg"]["finding"] for margin, base in (
        (0.05, 0.4), (0.05, 0.2), (0.1, 0.2), (0.01, 0.4),
    )]  # fmt: skip
    assert found == ["equivalent", "open", "equivalent", "open"]


def test_findings_of_made_up_differences():
    """Without a stand-in for the bootstrap: 200 queries, noise of 0.1."""
    noise = np.random.default_rng(0).normal(scale=0.1, size=200)
    noise -= noise.mean()
    values = {"ahead": noise + 0.05, "behind": noise - 0.05, "equivalent": noise, "open": 20 * noise}
    splits = {("scgpt", name): split(of_name) for name, of_name in values.items()}
    found = headline(splits, dict.fromkeys(splits, 0.4), CONFIG, 0.05)["scgpt"]
    assert {name: row["finding"] for name, row in found.items()} == {name: name for name in values}
    assert found["ahead"]["p"] == found["behind"]["p"] == pytest.approx(2 / 1000)
    assert found["ahead"]["p_holm"] == pytest.approx(8 / 1000)


def test_seeds_are_drawn_again_beside_the_test_where_there_are_several():
    rng = np.random.default_rng(0)
    values = rng.normal(scale=0.1, size=100) + np.array([[-0.1], [0.2]])
    splits = {("scgpt", "logreg"): split(np.zeros(100)), ("scgpt_ensemble", "logreg"): split(values.mean(axis=0))}
    splits["scgpt", "logreg"] = [Differences(values, *[getattr(split(values[0])[0], n) for n in ("cells", "strata")])]
    found = headline(splits, dict.fromkeys(splits, 0.4), CONFIG, 0.05)
    seeded, ensemble = found["scgpt"]["logreg"], found["scgpt_ensemble"]["logreg"]
    assert seeded["low_with_seeds"] < seeded["low"] < seeded["high"] < seeded["high_with_seeds"]
    assert "low_with_seeds" not in ensemble
    assert {name: seeded[name] for name in ("gap", "low", "high", "p")} == pytest.approx(
        {name: ensemble[name] for name in ("gap", "low", "high", "p")}
    ), "p is of the mean over seeds"
