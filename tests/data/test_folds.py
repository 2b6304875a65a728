"""Folds of the known cells."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from reverse_perturbation.data.folds import folds


@given(st.lists(st.sampled_from("ABCD"), min_size=2, max_size=60), st.integers(2, 6), st.integers(0, 5))
def test_every_cell_is_held_out_once_and_every_condition_can_be_learned(labels, n, seed):
    labels = np.array(labels, dtype=object)
    names, counts = np.unique(labels.astype(str), return_counts=True)
    found = folds(labels, n, seed)
    held = np.concatenate([each for _, each in found]) if found else np.array([], dtype=int)
    alone = np.isin(labels.astype(str), names[counts == 1])
    assert sorted(held) == np.flatnonzero(~alone).tolist()
    for train, out in found:
        assert sorted([*train, *out]) == list(range(len(labels)))
        assert set(labels[out]) <= set(labels[train])
        for name, count in zip(names, counts, strict=True):
            assert (labels[out] == name).sum() in ((0,) if count == 1 else (count // n, -(-count // n)))


def test_a_seed_fixes_the_folds_and_another_gives_others():
    labels = np.array(["A", "B"] * 50, dtype=object)
    one, again, other = (folds(labels, 5, seed) for seed in (0, 0, 1))
    assert all((a[1] == b[1]).all() for a, b in zip(one, again, strict=True))
    assert any(set(a[1]) != set(b[1]) for a, b in zip(one, other, strict=True))
