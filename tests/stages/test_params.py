"""Every key of params.yaml can be set with -S, is read, and makes stale the stages it should and no others."""

import ast
import shutil
from collections.abc import Iterator
from contextlib import closing
from inspect import signature
from pathlib import Path
from typing import Any, get_args

import pytest
from dvc.dependency.param import ParamsDependency
from dvc.repo import Repo
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from reverse_perturbation import config
from reverse_perturbation.config import load_params
from reverse_perturbation.data.split import split_cells
from tests.stages.test_dependencies import PACKAGE, ROOT

MODELS = {"logreg", "pca", "pretrain", "finetune", "fuse", "embed"}
EVALUATIONS = {"evaluate", "evaluate_baselines"}
QUERIED = {"analysis"} | EVALUATIONS
# Which stages a change of a key, or of any key of a section, makes stale by itself; what follows from them is left to
# DVC. The longest name that fits counts.
STALE = {
    "data.source": {"prepare", "library_query"} | QUERIED,
    "data.path": {"prepare", "analysis"},
    "data.simulated": {"prepare", "analysis"},
    "data.genes": MODELS | QUERIED,
    "mask": MODELS | QUERIED | {"library_query"},
    "labels": {"split", "probe", "library_query"} | QUERIED,
    "split": {"split"},
    "split.kind": {"split"} | EVALUATIONS,
    "split.seed": {"split", "library_query", "compare", "report"} | QUERIED,
    "seeds": {"finetune", "fuse", "embed", "evaluate", "library_query", "compare", "analysis", "report"},
    "models": {"embed", "evaluate", "library_query", "compare", "analysis", "report"},
    "launcher": {"finetune", "fuse", "embed"},
    "precision": {"finetune", "fuse", "embed"},
    "logreg": {"logreg"},
    "pca": {"pca"},
    "scgpt": {"pretrain", "finetune", "fuse", "embed"},
    "scgpt.checkpoint": {"vocab_map", "pretrain", "finetune", "fuse", "embed"},
    "pretrain": {"pretrain"},
    "finetune": {"finetune", "fuse"},
    "fusion": {"fuse"},
    "library": QUERIED | {"library_query"},
    **dict.fromkeys(("library.kind", "library.embedding", "library.similarity", "query.kind", "query.cells"), QUERIED),
    "query": QUERIED | {"library_query"},
    "library_query": {"library_query"},
    "evaluate": QUERIED,
    "analysis": {"analysis"},
    "analysis.similar": {"analysis", "report"},
    "compare": {"compare"},
    "targets": {"compare"},
}
# Keys that need another value than `other` gives, as they are written behind -S.
VALUES = {
    "data.path": "params.yaml",
    "launcher": "accelerate launch -m",
    "scgpt.checkpoint": "scGPT_human",
    "seeds": "[0,2]",
    "models": "[scgpt]",
    "logreg.scaling": "[none]",
    "logreg.c": "[0.5]",
    "analysis.averaged": "[5]",
    "library_query.cells": "[5]",
    "finetune.readout": "[cls]",
    "finetune.lora.targets": "[qkv]",
}


def leaves(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


DEFAULTS = dict(leaves(YAML(typ="safe").load(ROOT / "params.yaml")))


def other(key: str) -> str:
    """Another value the key can have, as it is written behind -S."""
    if key in VALUES:
        return VALUES[key]
    value = DEFAULTS[key]
    if isinstance(value, bool):
        return str(not value).lower()
    if isinstance(value, int):
        return str(value + 1)
    if isinstance(value, float):
        return str(value / 2 if value else 0.1)
    choices = field(key).annotation
    return next(choice for choice in get_args(choices) if choice != value)


def field(key: str) -> Any:
    section: Any = config.Params
    *sections, last = key.split(".")
    for name in sections:
        section = section.model_fields[name].annotation
    return section.model_fields[last]


def expected(key: str) -> set[str]:
    fitting = [name for name in STALE if f"{key}.".startswith(f"{name}.")]
    assert fitting, f"{key} is new: add it to STALE"
    return STALE[max(fitting, key=len)]


def stages(folder: Path) -> dict[str, tuple[dict[str, Any], set[str]]]:
    """What DVC resolves: each stage as it would be written to dvc.lock, and the parameters it depends on."""
    with closing(Repo(str(folder))) as repo:
        return {
            stage.name: (
                {"cmd": stage.cmd, "deps": sorted(str(dep) for dep in stage.deps)},
                {name for dep in stage.deps if isinstance(dep, ParamsDependency) for name in dep.params},
            )
            for stage in repo.index.stages
        }


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder / name)
    Repo.init(str(folder), no_scm=True).close()
    return folder


@pytest.fixture(scope="module")
def before(folder) -> dict[str, tuple[dict[str, Any], set[str]]]:
    return stages(folder)


def changed(folder: Path, key: str) -> Path:
    """params.yaml after ``dvc exp run -S key=...``."""
    shutil.copy(ROOT / "params.yaml", folder / "params.yaml")
    # What `dvc exp run -S` itself calls, quotes included.
    apply_overrides(folder / "params.yaml", [f"{key}='{other(key)}'" if " " in other(key) else f"{key}={other(key)}"])
    return folder / "params.yaml"


@pytest.mark.parametrize("key", DEFAULTS)
def test_a_key_can_be_set_and_makes_stale_what_reads_it(folder, before, key):
    file = changed(folder, key)
    load_params(file)  # the value has a type the key can have
    after_keys = dict(leaves(YAML(typ="safe").load(file)))
    assert {name for name in DEFAULTS if after_keys[name] != DEFAULTS[name]} == {key}
    found = {name for name, (_, params) in before.items() if any(f"{key}.".startswith(f"{param}.") for param in params)}
    if f"${{{key}}}" in (ROOT / "dvc.yaml").read_text():
        after = stages(folder)
        found |= before.keys() ^ after.keys()
        found |= {name for name in before.keys() & after.keys() if before[name][0] != after[name][0]}
    assert {name.split("@")[0] for name in found} == expected(key)


@pytest.mark.parametrize("key", DEFAULTS)
def test_a_key_is_read_by_code(key):
    assert key.rsplit(".", 1)[-1] in READ


@pytest.mark.parametrize("name", STALE)
def test_the_table_holds_no_key_that_is_gone(name):
    assert any(f"{key}.".startswith(f"{name}.") for key in DEFAULTS)


def attributes() -> set[str]:
    """Names of attributes that the package reads anywhere outside config.py, which only declares them."""
    files = [file for file in PACKAGE.rglob("*.py") if file.name != "config.py"]
    trees = [ast.parse(file.read_text()) for file in files]
    return {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


# The launcher is in dvc.yaml alone; the section split is handed over as keywords.
READ = attributes() | {"launcher"} | set(signature(split_cells).parameters)
