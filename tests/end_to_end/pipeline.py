"""Run the stages of dvc.yaml in one process and any folder, on a screen small enough for a test."""

import os
import runpy
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from dvc.repo import Repo
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
yaml = YAML(typ="safe")

SMALL = {
    "data": {
        "source": "simulated",
        "path": str(ROOT / "data" / "norman_conditions.csv"),
        "simulated": {"n_conditions": 6, "n_cells": 700, "n_genes": 90},
    },
    "tuning": {"folds": 2},
    "logreg": {"features": ["log1p_depth"], "scaling": ["max_abs"], "c": {"evaluations": 3}},
    "logreg_genes": {"scaling": ["max_abs"], "gene_share": [1.0], "c": {"evaluations": 3}},
    "lda": {"features": ["log1p"], "shrinkage": [0.3, 0.7]},
    "mlp": {"width": 8, "dropout": [0.5], "epochs": 2, "seeds": [0]},
    "pca": {"components": 10},
    "pretrain": {"layers": 1, "heads": 2, "width": 16, "epochs": 1},
    "finetune": {"schedule": {"epochs": 2}, "head": {"dim": 16}},
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
            _update(content.setdefault(key, {}), value)
        else:
            content[key] = value


def commands(content: dict[str, Any]) -> dict[str, str]:
    """Stage name -> command as DVC resolves it, in the order of dvc.yaml, which is one in which they can run."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(ROOT / "dvc.yaml", folder)
        with (Path(folder) / "params.yaml").open("w") as file:
            yaml.dump(content, file)
        with closing(Repo.init(folder, no_scm=True)) as repo:
            return {stage.name: stage.cmd for stage in repo.index.stages}


def run(
    folder: Path, content: dict[str, Any], until: str | None = None, only: Callable[[str], bool] = lambda name: True
) -> None:
    """Run every stage in a folder, or those up to one, or those that are wanted."""
    with (folder / "params.yaml").open("w") as file:
        yaml.dump(content, file)
    with inside(folder):
        for name, command in commands(content).items():
            if not only(name):
                continue
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
