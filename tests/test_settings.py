"""Settings given to ``dvc exp run -S`` outside params.yaml name keys that exist and values they can have."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from reverse_perturbation.config import Params
from reverse_perturbation.norman_scale import PROTOCOL, TIME
from reverse_perturbation.real_cells import EXPERIMENTS

ROOT = Path(__file__).parents[1]
yaml = YAML(typ="safe")


def with_settings(settings: dict[str, str]) -> Params:
    content = yaml.load(ROOT / "params.yaml")
    for key, value in settings.items():
        *sections, last = key.split(".")
        section: dict[str, Any] = content
        for name in sections:
            section = section[name]
        assert last in section, key
        section[last] = yaml.load(value)
    return Params.model_validate(content)


def rows_of_the_ablation() -> dict[str, dict[str, str]]:
    script = (ROOT / "scripts" / "ablation.sh").read_text()
    for loop, values in re.findall(r"for (\w+) in ([\w ]+); do", script):
        if loop in ("batch", "rank", "cells"):
            script = script.replace(f"$((2 * {loop}))", "8").replace(f"${loop}", values.split()[0])
    lines = re.findall(r"^ +row (.*)$", script, flags=re.M)
    return {name: dict(s.split("=", 1) for s in settings) for name, *settings in map(shlex.split, lines)}


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=str)
def test_settings_of_the_report_on_real_cells(experiment):
    found = with_settings(experiment.settings(Path("cells.h5ad")))
    assert (found.mask, found.split.seed) == (experiment.mask, experiment.split_seed)
    assert found.seeds == [0, 1, 2, 3, 4]


def test_settings_at_norman_scale_are_the_specification_s_protocol():
    found = with_settings(PROTOCOL | TIME)
    assert (found.mask, found.labels, found.split.seed, len(found.seeds)) == ("own", "legacy", 42, 2)
    assert found.data.simulated.model_dump(exclude={"seed"}) == {"conditions": 282, "cells": 91_205, "genes": 5_045}


def test_the_readme_s_best_settings_are_those_of_the_report_on_real_cells():
    line = next(line for line in (ROOT / "README.md").read_text().split("\n") if "finetune.readout=" in line)
    path = Path("data/raw/norman_subset.h5ad")
    given = dict(word.split("=", 1) for word in shlex.split(line) if "=" in word)
    assert with_settings(given) == with_settings(EXPERIMENTS[0].settings(path))


@pytest.mark.parametrize(("name", "settings"), rows_of_the_ablation().items())
def test_rows_of_the_ablation(name, settings):
    default = EXPERIMENTS[0].settings(Path("cells.h5ad"))
    assert with_settings(default | settings) != with_settings(default), "a row that changes nothing"


def test_the_ablation_has_the_rows_it_should():
    assert {
        "frozen",
        "head",
        "last-1",
        "last-2",
        "lora-8",
        "binned",
        "cls",
        "not-pretrained",
    } <= rows_of_the_ablation().keys()
