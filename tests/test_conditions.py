"""Labels and the genes they stand for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reverse_perturbation.conditions import canonical, genes_of, in_space, twins

names = st.sampled_from(["A", "B", "KLF1", "ctrl"])
labels = st.one_of(st.just("ctrl"), st.tuples(names, names).map("+".join))


@pytest.mark.parametrize(
    ("label", "genes", "name"),
    [
        ("ctrl", set(), "ctrl"),
        ("KLF1+ctrl", {"KLF1"}, "KLF1+ctrl"),
        ("ctrl+KLF1", {"KLF1"}, "KLF1+ctrl"),
        ("SET+KLF1", {"SET", "KLF1"}, "KLF1+SET"),
    ],
)
def test_known_labels(label, genes, name):
    assert genes_of(label) == genes
    assert canonical(label) == name


@given(labels)
def test_canonical_keeps_the_genes_and_is_stable(label):
    assert genes_of(canonical(label)) == genes_of(label)
    assert canonical(canonical(label)) == canonical(label)


@given(labels, labels)
def test_same_canonical_label_means_same_genes(a, b):
    assert (canonical(a) == canonical(b)) == (genes_of(a) == genes_of(b))


@pytest.mark.parametrize("label", ["", "A+", "+A", "A++B"])
def test_empty_parts_are_refused(label):
    with pytest.raises(ValueError, match="empty part"):
        genes_of(label)


def test_spaces_and_twins():
    cells = ["A+ctrl", "ctrl+A", "B+A", "ctrl"]
    assert list(in_space(cells, "legacy")) == cells
    assert list(in_space(cells, "canonical")) == ["A+ctrl", "A+ctrl", "A+B", "ctrl"]
    assert twins(cells) == {"A+ctrl": ["A+ctrl", "ctrl+A"]}
