"""A parameter file is right in every key or refused with the key's name."""

from pathlib import Path

import pytest

from reverse_perturbation.config import load_params
from reverse_perturbation.errors import InputError

DEFAULTS = Path(__file__).parents[1] / "params.yaml"


def changed(tmp_path: Path, old: str, new: str) -> Path:
    text = DEFAULTS.read_text()
    assert text.count(old) == 1
    path = tmp_path / "params.yaml"
    path.write_text(text.replace(old, new))
    return path


def test_the_defaults_are_valid():
    assert load_params(DEFAULTS).split.seed == 42


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("mask: all_targets", "mask: al_targets", "mask: .*found 'al_targets'"),
        (
            "  min_cells: 50 ",
            "  min_cels: 50 ",
            "split.min_cels: unknown key.*split.min_cells|split.min_cells",
        ),
        ("  min_query: 10 ", '  min_query: "10" ', "split.min_query: .*found '10'"),
        ("  max_iter: 500", "  max_iter: 500.5", "logreg.max_iter: .*found 500.5"),
        ("  query_fraction: 0.2 ", "  query_fraction: 1.2 ", "split.query_fraction: .*found 1.2"),
        ("mask: all_targets", "masks: all_targets", "mask: Field required"),
        ("labels: canonical", "labels: [", "not YAML"),
        ("  - 0\n  - 1\n", "  - 1\n  - 1\n", "seeds: .*listed twice"),
        ("  - fusion\n", "  - logreg\n", r"models\.1: .*found 'logreg'"),
        ("  - fusion\n", "  - scgpt\n", r"models: .*give \[scgpt\] or \[scgpt, fusion\]"),
        ("    cross_entropy: 1.0 ", "    cross_entropy: 0.0 ", "finetune.loss: .*all 0; give at least one a weight$"),
        ("  sampler: random ", "  sampler: balance ", "finetune.sampler: .*found 'balance'"),
    ],
)
def test_a_wrong_key_is_named(tmp_path, old, new, message):
    with pytest.raises(InputError, match=message):
        load_params(changed(tmp_path, old, new))


def test_balanced_batches_are_of_whole_conditions(tmp_path):
    path = changed(tmp_path, "  sampler: random ", "  sampler: balanced ")
    assert load_params(path).finetune.sampler == "balanced"
    path.write_text(path.read_text().replace("cells_per_condition: 8 ", "cells_per_condition: 6 "))
    with pytest.raises(InputError, match=r"batch_size 64 is no multiple of cells_per_condition 6.*change one of them$"):
        load_params(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.yaml: no such file"):
        load_params(tmp_path / "none.yaml")


def test_a_number_as_dvc_writes_it_back_is_a_number(tmp_path):
    """``-S finetune.backbone_learning_rate=1e-5`` is stored as 1e-05, a string to PyYAML."""
    path = changed(tmp_path, "backbone_learning_rate: 0.001", "backbone_learning_rate: 1e-05")
    assert load_params(path).finetune.backbone_learning_rate == 1e-5


def test_every_key_with_a_value_says_what_it_is():
    """A user reads params.yaml, not the code."""
    for line in DEFAULTS.read_text().splitlines():
        key, _, value = line.partition(":")
        if value.strip() and not line.lstrip().startswith(("#", "-")):
            assert "# " in value, key
