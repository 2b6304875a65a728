"""Run the stages of dvc.yaml in one process and any folder, on a screen small enough for a test."""

import os
import runpy
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
yaml = YAML(typ="safe")

SMALL = {
    "data": {
        "source": "simulated",
        "path": str(ROOT / "data" / "norman_conditions.csv"),
        "simulated": {"conditions": 6, "cells": 700, "genes": 90},
    },
    "logreg": {"c": [0.01, 0.1]},
    "pca": {"components": 10},
    "pretrain": {"layers": 1, "heads": 2, "width": 16, "epochs": 1},
    "finetune": {"epochs": 2, "head_dim": 16},
    "library": {"prototypes": 5, "cells_per_prototype": 10},
    "compare": {"draws": 200},
}


def params(**changes: Any) -> dict[str, Any]:
    """The default parameters, made small, with the changes given as section={key: value}."""
    content = yaml.load(ROOT / "params.yaml")
    _update(content, SMALL)
    _update(content, changes)
    return content


def _update(content: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, dict):
            _update(content[key], value)
        else:
            content[key] = value


def commands(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Stage name and command, in the order of dvc.yaml, which is one in which they can run."""
    pipeline = yaml.load(ROOT / "dvc.yaml")
    baselines = pipeline["vars"][0]["baselines"]
    for name, stage in pipeline["stages"].items():
        if "matrix" in stage:
            for model, seed in product(content["models"], content["seeds"]):
                key = f"{model}-{seed}"
                command = stage["cmd"].replace("${item.model}", model).replace("${item.seed}", str(seed))
                command = command.replace("${launcher}", content["launcher"])
                yield f"{name}@{key}", command.replace("${key}", key)
            continue
        each = stage.get("foreach")
        if each is None:
            yield name, stage["cmd"].replace("${baselines}", baselines)
            continue
        items = content["seeds"] if each == "${seeds}" else each
        pairs = items.items() if isinstance(items, dict) else [(item, item) for item in items]
        for key, item in pairs:
            command = stage["do"]["cmd"].replace("${item}", str(item)).replace("${key}", str(key))
            yield f"{name}@{key}", command.replace("${launcher}", content["launcher"])


def run(
    folder: Path, content: dict[str, Any], until: str | None = None, only: Callable[[str], bool] = lambda name: True
) -> None:
    """Run every stage in a folder, or those up to one, or those that are asked for."""
    with (folder / "params.yaml").open("w") as file:
        yaml.dump(content, file)
    with inside(folder):
        for name, command in ((name, command) for name, command in commands(content) if only(name)):
            _, _, module, *arguments = shlex.split(command)
            sys.modules.pop(module, None)  # run_module warns about a stage that another test has imported
            with patch.object(sys, "argv", [module, *arguments]):
                runpy.run_module(module, run_name="__main__")
            if name == until:
                return


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Work in a folder."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
