"""Settings given to ``dvc exp run -S`` outside params.yaml name keys that exist and values they can have."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from reverse_perturbation.config import Params
from reverse_perturbation.studies.norman_scale import PROTOCOL, TIME
from reverse_perturbation.studies.screens import EXPERIMENTS

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
    """Return what each row of the script sets, as the shell expands it."""
    script = (ROOT / "scripts" / "ablation.sh").read_text()
    groups = script[script.index("adaptation() {") : script.index("row default\n")]
    names = re.findall(r"^(\w+)\(\) {", groups, flags=re.M)
    shell = "row() { printf '%s\\t' \"$@\"; echo; }\n" + groups + "\n".join(names)
    lines = subprocess.run(["bash", "-euc", shell], capture_output=True, text=True, check=True).stdout.splitlines()
    rows = [line.split("\t")[:-1] for line in lines]
    return {name: dict(setting.split("=", 1) for setting in settings) for name, *settings in rows}


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
    same = with_settings(default | settings) == with_settings(default)
    assert same == (name == "random-64"), "only this row, in its place among the losses, is the default"


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
        "mixing-4",
        *(
            f"{sampler}{loss}-{batch}"
            for sampler in ("random", "balanced")
            for loss in ("", "-infonce", "-supcon")
            for batch in (32, 64, 128)
        ),
    } <= rows_of_the_ablation().keys()
