"""The bootstrap of cells and seeds against what is known of it."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from reverse_perturbation.comparison import significance
from reverse_perturbation.comparison.significance import Differences, Gap, bootstrap, over_seeds, paired_bootstrap


@pytest.fixture
def case() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    strata = np.repeat(np.array(["A+ctrl", "B+ctrl", "A+B"], dtype=object), [200, 50, 10])
    rng.shuffle(strata)
    return rng.random(260) + 0.1, rng.random(260), strata


def test_the_same_answers_have_no_gap(case):
    a, _, strata = case
    assert paired_bootstrap(a, a, strata, draws=50, seed=0) == Gap(0, 0, 0, 0, 0, p=1)


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
    blocks = paired_bootstrap(*case, draws=300, seed=0)
    assert vars(blocks) == pytest.approx(vars(first), rel=1e-12), "only the order of additions differs"


def test_a_condition_of_one_query():
    gap = paired_bootstrap(np.array([1.0]), np.array([0.5]), np.array(["A+ctrl"]), draws=10, seed=0)
    assert gap == Gap(0.5, 0.5, 0.5, 0.5, 0.5, p=2 / 11)


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


def seeded(values: np.ndarray, strata: np.ndarray) -> list[Differences]:
    """One split, every query a cell of its own."""
    return [Differences(values, np.arange(len(strata)), strata)]


def test_with_seeds_drawn_again_the_interval_holds_their_difference(case):
    """Queries that all agree leave the seeds alone: with gaps of 0 and 1, a quarter of the samples is at either end."""
    *_, strata = case
    values = np.array([np.zeros(260), np.ones(260)])
    gap = bootstrap(seeded(values, strata), draws=400, seed=0, seeds=True)
    assert [gap.mean, gap.low, gap.high] == pytest.approx([0.5, 0, 1])
    alone = bootstrap(seeded(values, strata), draws=400, seed=0)
    assert [alone.mean, alone.low, alone.high] == pytest.approx([0.5] * 3), "seeds enter as their mean"


def test_with_seeds_that_agree_the_interval_is_that_of_the_queries(case):
    a, b, strata = case
    alone = paired_bootstrap(a, b, strata, draws=4000, seed=0)
    both = bootstrap(seeded(np.array([a - b] * 3), strata), draws=4000, seed=0, seeds=True)
    assert both.mean == pytest.approx(alone.mean)
    assert [both.low, both.high] == pytest.approx([alone.low, alone.high], abs=0.004)


def test_the_variances_of_seeds_and_queries_add_up(case):
    """Of n seeds a bootstrap finds the share (n - 1) / n of the variance of their mean."""
    a, b, strata = case
    offsets = np.array([-0.06, -0.02, 0.03, 0.05])
    both = bootstrap(seeded(a - b + offsets[:, None], strata), draws=8000, seed=0, seeds=True)
    alone = paired_bootstrap(a, b, strata, draws=8000, seed=0)
    half = np.hypot((alone.high - alone.low) / 2, 1.96 * offsets.std() / 2)
    assert (both.high - both.low) / 2 == pytest.approx(half, rel=0.04)


def test_seeds_of_different_splits_are_drawn_independently():
    """Two splits, each with the gaps 0 and 1: the means are 0, 1/4, ... 1, and 0 and 1 come once in 16 times each."""
    values = np.array([np.zeros(5), np.ones(5)])
    strata = np.full(5, "A+ctrl")
    splits = [Differences(values, np.arange(5) + 5 * i, strata) for i in range(2)]
    gap = bootstrap(splits, draws=4000, seed=0, seeds=True)
    assert [gap.mean, gap.low, gap.high] == pytest.approx([0.5, 0, 1])
    assert [gap.low_90, gap.high_90] == pytest.approx([0, 1])
    assert gap.p == pytest.approx(2 / 16, rel=0.2)


def test_one_seed_cannot_be_drawn_again(case):
    a, b, strata = case
    (one,), (two,) = seeded((a - b)[None], strata), seeded(np.array([a, a]), strata)
    for splits in ([one], [two, one]):
        with pytest.raises(ValueError, match="one seed"):
            bootstrap(splits, draws=10, seed=0, seeds=True)
    with pytest.raises(ValueError, match=r"\(2, 259\) for 260 cells and 260 strata"):
        Differences(np.array([a[1:], a[1:]]), np.arange(260), strata)
    with pytest.raises(ValueError, match="for 0 cells"):
        Differences(np.ones((1, 0)), np.arange(0), np.arange(0))


# ---- several splits


def test_a_cell_that_is_a_query_twice_is_drawn_with_both_occurrences():
    """By hand: cells a, b, c of one condition; b is a query of both splits.

    A sample of three cells has the sum of their values over the number of their occurrences, which differs from sample
    to sample. All 27 samples are as likely, so with many draws the ends of the interval are known.
    """
    strata = np.full(2, "A+ctrl")
    first = Differences(np.array([[0.2, 0.4]]), np.array(["a", "b"]), strata)
    second = Differences(np.array([[0.0, 0.5]]), np.array(["b", "c"]), strata)
    gap = bootstrap([first, second], draws=20_000, seed=0)
    assert gap.mean == pytest.approx((0.2 + 0.4 + 0.0 + 0.5) / 4), "over all occurrences, not over cells"
    sums, times = {"a": 0.2, "b": 0.4, "c": 0.5}, {"a": 1, "b": 2, "c": 1}
    samples = [sum(sums[c] for c in drawn) / sum(times[c] for c in drawn) for drawn in product("abc", repeat=3)]
    ends = np.percentile(samples, [2.5, 97.5], method="inverted_cdf")
    assert [gap.low, gap.high] == pytest.approx(ends)
    assert [gap.low, gap.high] == pytest.approx([0.2, 0.5]), "b, b, b and c, c, c have more than 2.5 % each"


def test_two_occurrences_that_depend_perfectly_are_worth_one(case):
    """The same split twice, in another order: the same mean and the same interval, not one narrower by sqrt(2)."""
    a, b, strata = case
    cells, order = np.array([f"c{i}" for i in range(260)], dtype=object), np.random.default_rng(1).permutation(260)
    one = Differences((a - b)[None], cells, strata)
    turned = Differences((a - b)[None, order], cells[order], strata[order])
    once, twice = (bootstrap(splits, draws=300, seed=0) for splits in ([one], [one, turned]))
    assert vars(twice) == pytest.approx(vars(once))
    apart = Differences((a - b)[None], np.array([f"d{i}" for i in range(260)], dtype=object), strata)
    independent = bootstrap([one, apart], draws=300, seed=0)
    assert independent.high - independent.low < 0.85 * (once.high - once.low), "of other cells it would be narrower"


def test_splits_of_unequal_size_count_by_their_queries():
    """Three queries with a gap of 1 and one with 0, each in a stratum of its own, which cannot move."""
    one = Differences(np.ones((1, 3)), np.arange(3), np.array(["A", "B", "C"]))
    other = Differences(np.zeros((2, 1)), np.array([3]), np.array(["D"]))
    gap = bootstrap([one, other], draws=20, seed=0)
    assert [gap.mean, gap.low, gap.high] == pytest.approx([0.75] * 3)


def test_names_of_cells_do_not_decide_the_samples(case):
    a, b, strata = case
    names = np.array([f"cell {i}" for i in np.random.default_rng(2).permutation(260)], dtype=object)
    assert bootstrap([Differences((a - b)[None], names, strata)], draws=50, seed=0) == paired_bootstrap(
        a, b, strata, draws=50, seed=0
    )


# ---- p and equivalence


def test_p_by_hand():
    strata = np.array(["A+ctrl"] * 2)
    ahead = paired_bootstrap(np.array([0.1, 0.3]), np.zeros(2), strata, draws=99, seed=0)
    assert ahead.p == pytest.approx(2 / 100), "no sample is on the other side of 0; the gap itself counts as one"
    behind = paired_bootstrap(np.array([-0.1, -0.3]), np.zeros(2), strata, draws=99, seed=0)
    assert behind.p == ahead.p, "two-sided"
    none = paired_bootstrap(np.array([0.2, -0.2]), np.zeros(2), strata, draws=99, seed=0)
    assert none.p == 1, "half of the samples are exactly 0, which is on both sides"
    quarter = paired_bootstrap(np.array([-0.1, 0.3]), np.zeros(2), strata, draws=4000, seed=0)
    assert quarter.p == pytest.approx(2 / 4, rel=0.1), "a quarter of the samples are of the first alone"


def test_p_and_the_interval_agree(case):
    """Two-sided p below 0.05 where the 95 % interval leaves 0 out."""
    d = case[0] - case[1]
    for shift in np.linspace(-0.1, 0.1, 21):
        gap = paired_bootstrap(d - d.mean() + shift, np.zeros(260), case[2], draws=999, seed=0)
        if min(abs(gap.low), abs(gap.high)) > 0.002:  # but for the counting of the gap itself
            assert (gap.p < 0.05) == (not gap.low <= 0 <= gap.high)


def test_p_is_below_5_percent_in_5_percent():
    """Of 300 repetitions in which there is no gap, about 15."""
    rng = np.random.default_rng(3)
    strata = np.repeat(np.array(["A+ctrl", "B+ctrl"], dtype=object), 40)
    found = [paired_bootstrap(rng.random(80), rng.random(80), strata, draws=200, seed=i).p for i in range(300)]
    assert 5 <= sum(p < 0.05 for p in found) <= 30


def test_equivalence_is_decided_by_the_90_percent_interval():
    gap = Gap(0.01, low=-0.05, high=0.06, low_90=-0.04, high_90=0.03, p=0.8)
    assert gap.equivalent(np.nextafter(0.04, 1))
    assert not gap.equivalent(0.04), "the margin itself is outside"
    assert not gap.equivalent(0.035)
    other = Gap(0.01, low=-0.05, high=0.06, low_90=-0.02, high_90=0.03, p=0.8)
    assert other.equivalent(np.nextafter(0.03, 1))
    assert not other.equivalent(0.03)
    assert not Gap(0, 0, 0, 0, 0, p=1).equivalent(0), "nothing is within no margin"


def test_the_90_percent_interval_is_inside_the_other(case):
    gap = paired_bootstrap(*case, draws=4000, seed=0)
    assert gap.low < gap.low_90 < gap.high_90 < gap.high
    assert (gap.high_90 - gap.low_90) / (gap.high - gap.low) == pytest.approx(1.645 / 1.96, rel=0.04)


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(st.tuples(st.floats(-1, 1), st.integers(0, 3), st.booleans()), min_size=1, max_size=12),
    shift=st.floats(-2, 2),
    seeds=st.booleans(),
)
def test_shifting_all_values_shifts_mean_and_ends(values, shift, seeds):
    """In one split or two with cells in common."""
    d = np.array([value for value, *_ in values])
    strata, again = np.array([stratum for _, stratum, _ in values]), np.array([twice for *_, twice in values])
    d = np.array([d, -d / 2])
    splits = [(d, np.arange(len(strata)), strata), (d[:, again] / 3, np.flatnonzero(again), strata[again])]
    splits = [split for split in splits if len(split[1])]

    def gap(by: float) -> Gap:
        parts = [Differences(values + by, cells, strata) for values, cells, strata in splits]
        return bootstrap(parts, draws=50, seed=0, seeds=seeds)

    moved, still = gap(shift), gap(0.0)
    for name in ("mean", "low", "high", "low_90", "high_90"):
        assert getattr(moved, name) == pytest.approx(getattr(still, name) + shift, abs=1e-9)
