"""Every key of params.yaml can be set with -S, is read by code, and reaches the stages of dvc.yaml."""

import ast
import shutil
from collections.abc import Iterator
from contextlib import closing
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any, get_args

import pytest
from dvc.dependency.param import ParamsDependency
from dvc.repo import Repo
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from reverse_perturbation import config
from reverse_perturbation.config import known_baselines, load_params
from reverse_perturbation.data.split import split_cells
from tests.stages.test_dependencies import PACKAGE, ROOT

# Keys that need another value than `other` gives, as they are written behind -S.
VALUES = {
    "data.path": "params.yaml",
    "data.sha256": "ab" * 32,
    "launcher": "'accelerate launch -m'",
    "scgpt.checkpoint": "scGPT_human",
    "seeds": "[0,2]",
    "models": "[scgpt]",
    "baselines": "[logreg,pca]",
    "logreg.scaling": "[none]",
    "logreg.features": "[log1p]",
    "logreg_genes.features": "[log1p]",
    "logreg_genes.scaling": "[none]",
    "lda.features": "[log1p]",
    "finetune.head.readout": "[cls]",
    "finetune.adaptation.lora.targets": "[qkv]",
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
    if isinstance(value, list):
        return str(value[:1])
    return next(choice for choice in get_args(field(key).annotation) if choice != value)


def field(key: str) -> Any:
    *sections, last = key.split(".")
    section: Any = config.Params
    if sections[:1] and sections[0] in known_baselines():
        section = import_module(f"reverse_perturbation.models.baselines.{sections.pop(0)}").Config
    for name in sections:
        section = section.model_fields[name].annotation
    return section.model_fields[last]


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "params.yaml"


def test_every_key_can_be_set_alone(file):
    for key in DEFAULTS:
        shutil.copy(ROOT / "params.yaml", file)
        apply_overrides(file, [f"{key}={other(key)}"])  # what `dvc exp run -S` itself calls
        load_params(file).check_baselines()  # the value has a type and range the key can have
        after = dict(leaves(YAML(typ="safe").load(file)))
        assert {name for name in DEFAULTS if after[name] != DEFAULTS[name]} == {key}


def test_every_key_is_read_by_code():
    files = [file for file in PACKAGE.rglob("*.py") if file.name != "config.py"]
    trees = [ast.parse(file.read_text()) for file in files]
    read = {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    # The launcher is in dvc.yaml alone; the section split is handed over as keywords.
    read |= {"launcher"} | set(signature(split_cells).parameters)
    assert not [key for key in DEFAULTS if key.rsplit(".", 1)[-1] not in read]


def test_every_key_reaches_a_stage():
    with closing(Repo(str(ROOT))) as repo:
        tracked = {
            name
            for stage in repo.index.stages
            for dep in stage.deps
            if isinstance(dep, ParamsDependency)
            for name in dep.params
        }
    templated = (ROOT / "dvc.yaml").read_text()
    reached = [key for key in DEFAULTS if any(f"{key}.".startswith(f"{name}.") for name in tracked)]
    assert not [key for key in DEFAULTS if key not in reached and f"${{{key}}}" not in templated]
