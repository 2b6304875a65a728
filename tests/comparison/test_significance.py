"""The paired bootstrap against what is known of it."""

import numpy as np
import pytest
from scipy import stats

from reverse_perturbation.comparison import significance
from reverse_perturbation.comparison.significance import Gap, over_seeds, paired_bootstrap, paired_bootstrap_with_seeds


@pytest.fixture
def case() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    strata = np.repeat(np.array(["A+ctrl", "B+ctrl", "A+B"], dtype=object), [200, 50, 10])
    rng.shuffle(strata)
    return rng.random(260) + 0.1, rng.random(260), strata


def test_the_same_answers_have_no_gap(case):
    a, _, strata = case
    assert paired_bootstrap(a, a, strata, draws=50, seed=0) == Gap(0, 0, 0)


def test_pairing_takes_out_how_hard_the_queries_are(case):
    a, _, strata = case
    gap = paired_bootstrap(a + 0.02, a, strata, draws=50, seed=0)
    assert [gap.mean, gap.low, gap.high] == pytest.approx([0.02] * 3)


def test_stratifying_takes_out_differences_between_conditions(case):
    """The gap is the same within each condition, so resampling within conditions cannot move it."""
    _, b, strata = case
    gap = paired_bootstrap(b + np.where(strata == "A+ctrl", 0.3, -0.1), b, strata, draws=50, seed=0)
    assert gap.low == pytest.approx(gap.high)
    assert gap.mean == pytest.approx((200 * 0.3 - 60 * 0.1) / 260)


def test_the_width_is_that_of_the_stratified_mean(case):
    a, b, strata = case
    gap = paired_bootstrap(a, b, strata, draws=4000, seed=1)
    d = a - b
    variance = sum((strata == s).sum() * d[strata == s].var() for s in set(strata)) / len(d) ** 2
    assert gap.mean == pytest.approx(d.mean())
    assert (gap.high - gap.low) / 2 == pytest.approx(1.96 * variance**0.5, rel=0.06)
    assert gap.low < gap.mean < gap.high


def test_against_scipy_in_one_stratum(case):
    d = case[0] - case[1]
    ours = paired_bootstrap(case[0], case[1], np.full(260, "A+ctrl"), draws=4000, seed=0)
    theirs = stats.bootstrap((d,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(0))
    interval = theirs.confidence_interval
    assert [ours.low, ours.high] == pytest.approx([interval.low, interval.high], abs=0.006)


def test_it_is_95_percent(case):
    """Of 300 repetitions in which there is no gap, about 15 find one."""
    rng = np.random.default_rng(3)
    strata = np.repeat(np.array(["A+ctrl", "B+ctrl"], dtype=object), 40)
    found = [paired_bootstrap(rng.random(80), rng.random(80), strata, draws=200, seed=i) for i in range(300)]
    assert 5 <= sum(not gap.low <= 0 <= gap.high for gap in found) <= 30


def test_seed_and_blocks(case, monkeypatch):
    first, other = (paired_bootstrap(*case, draws=300, seed=seed) for seed in (0, 1))
    assert first == paired_bootstrap(*case, draws=300, seed=0)
    assert first != other
    monkeypatch.setattr(significance, "BLOCK", 7)
    assert paired_bootstrap(*case, draws=300, seed=0) == first


def test_a_condition_of_one_query():
    gap = paired_bootstrap(np.array([1.0]), np.array([0.5]), np.array(["A+ctrl"]), draws=10, seed=0)
    assert gap == Gap(0.5, 0.5, 0.5)


@pytest.mark.parametrize("sizes", [(3, 2, 3), (3, 3, 2), (0, 0, 0), (3, 1, 3)])
def test_lengths_that_differ_are_an_error(sizes):
    a, b, strata = (np.ones(n) for n in sizes)
    with pytest.raises(ValueError):
        paired_bootstrap(a, b, strata, draws=5, seed=0)


def test_seeds_by_hand():
    """Two seeds: the t quantile with one degree of freedom is 12.706."""
    found = over_seeds(np.array([0.2, 0.4]))
    assert found.mean == pytest.approx(0.3)
    assert found.std == pytest.approx(0.2 / 2**0.5)
    assert [found.low, found.high] == pytest.approx([0.3 - 1.2706, 0.3 + 1.2706], abs=1e-4)
    with pytest.raises(ValueError, match="at least two"):
        over_seeds(np.array([0.3]))


def test_with_seeds_drawn_again_the_interval_holds_their_difference(case):
    """Queries that all agree leave the seeds alone: with gaps of 0 and 1, a quarter of the samples is at either end."""
    _, b, strata = case
    gap = paired_bootstrap_with_seeds(np.array([b, b + 1]), b, strata, draws=400, seed=0)
    assert [gap.mean, gap.low, gap.high] == pytest.approx([0.5, 0, 1])


def test_with_seeds_that_agree_the_interval_is_that_of_the_queries(case):
    a, b, strata = case
    alone = paired_bootstrap(a, b, strata, draws=4000, seed=0)
    both = paired_bootstrap_with_seeds(np.array([a, a, a]), b, strata, draws=4000, seed=0)
    assert both.mean == pytest.approx(alone.mean)
    assert [both.low, both.high] == pytest.approx([alone.low, alone.high], abs=0.004)


def test_the_variances_of_seeds_and_queries_add_up(case):
    """Of n seeds a bootstrap finds the share (n - 1) / n of the variance of their mean."""
    a, b, strata = case
    offsets = np.array([-0.06, -0.02, 0.03, 0.05])
    both = paired_bootstrap_with_seeds(a + offsets[:, None], b, strata, draws=8000, seed=0)
    alone = paired_bootstrap(a, b, strata, draws=8000, seed=0)
    half = np.hypot((alone.high - alone.low) / 2, 1.96 * offsets.std() / 2)
    assert (both.high - both.low) / 2 == pytest.approx(half, rel=0.04)


def test_one_seed_cannot_be_drawn_again(case):
    a, b, strata = case
    with pytest.raises(ValueError, match="1 seeds"):
        paired_bootstrap_with_seeds(a[None], b, strata, draws=10, seed=0)
    with pytest.raises(ValueError, match="260, 259 and 260"):
        paired_bootstrap_with_seeds(np.array([a, a]), b[1:], strata, draws=10, seed=0)
