"""A parameter file is right in every key or refused with the key's name."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from reverse_perturbation.config import Params, load_params
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


RANGES = {
    r"at least (\d+)": lambda low: ([low], [low - 1]),
    r"(\d+) to (\d+)": lambda low, high: ([low, high], [low - 1, high + 1]),
    r"between 0 and 1": lambda: ([1e-9, 1 - 1e-9], [0.0, 1.0]),
    r"0 to below 1": lambda: ([0.0, 1 - 1e-9], [-1e-9, 1.0]),
    r"above 0": lambda: ([1e-9], [0.0]),
}


def documented() -> Iterator[tuple[list[str], str]]:
    """Each key, its sections before it, and the comment beside it or above it."""
    path: list[str] = []
    for indent, key, comment in re.findall(r"^( *)(\w+):[^#\n]*(?:# (.*))?$", DEFAULTS.read_text(), flags=re.M):
        path = [*path[: len(indent) // 2], key]
        yield path, comment


def value_of(content: dict[str, Any], path: list[str]) -> Any:
    for name in path:
        content = content[name]
    return content


@pytest.mark.parametrize(("path", "comment"), documented(), ids=lambda x: ".".join(x) if isinstance(x, list) else "")
def test_what_a_key_can_be_is_said_beside_it(path, comment):
    content = YAML(typ="safe", pure=True).load(DEFAULTS)
    content["finetune"]["loss"]["supcon"] = 1.0  # not all of them may be 0
    *sections, last = path
    section, value = value_of(content, sections), value_of(content, path)
    if isinstance(value, dict):
        return
    assert comment
    first = value[0] if isinstance(value, list) else value
    if isinstance(first, bool):
        assert comment.startswith("true | false")
    if isinstance(first, bool | str | None):
        return
    bounds = next((bounds(*map(int, m.groups())) for p, bounds in RANGES.items() if (m := re.search(p, comment))), None)
    assert bounds, f"no range in {comment!r}"
    for inside, values in zip((True, False), bounds, strict=True):
        for each in values:
            section[last] = [each] if isinstance(value, list) else each
            if inside:
                Params.model_validate(content)
            else:
                with pytest.raises(ValidationError, match=last):
                    Params.model_validate(content)
