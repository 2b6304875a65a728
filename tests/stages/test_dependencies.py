"""dvc.yaml names, for each stage, every module it uses: a change of code reruns what it touches."""

import ast
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "reverse_perturbation"
# Plumbing: what it does shows in params (tracked by themselves), or cannot change a result.
PLUMBING = {"__init__", "config", "errors", "storage", "stages/__init__", "stages/arguments", "stages/device"}

STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]


def body(stage: dict) -> dict:
    return stage.get("do", stage)


def module_file(name: str) -> Path | None:
    path = PACKAGE.joinpath(*name.split(".")[1:])
    for found in (path.with_suffix(".py"), path / "__init__.py"):
        if found.exists():
            return found
    return None


def imported(path: Path) -> set[Path]:
    """Project modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("reverse_perturbation"):
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {file for name in names if (file := module_file(name)) is not None}


def needed(path: Path) -> set[Path]:
    """Project modules that a file needs, itself included."""
    found, todo = set(), [path]
    while todo:
        file = todo.pop()
        if file not in found:
            found.add(file)
            todo += imported(file)
    return {file for file in found if file.relative_to(PACKAGE).with_suffix("").as_posix() not in PLUMBING}


def entry(stage: dict) -> Path:
    command = body(stage)["cmd"]
    file = module_file(re.search(r"reverse_perturbation\.stages\.\w+", command)[0])
    assert file is not None
    return file


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_its_code(name):
    deps = [ROOT / dep for dep in body(STAGES[name])["deps"] if dep.startswith("src/")]
    missing = {
        file.relative_to(ROOT).as_posix()
        for file in needed(entry(STAGES[name]))
        if file.name != "__init__.py" and not any(file == dep or dep in file.parents for dep in deps)
    }
    assert not missing


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_no_code_it_does_not_use(name):
    used = needed(entry(STAGES[name]))
    for dep in body(STAGES[name])["deps"]:
        if dep.startswith("src/") and dep.endswith(".py"):
            assert ROOT / dep in used, dep


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_says_what_it_does_and_reads_what_it_is_given(name):
    stage = body(STAGES[name])
    assert stage["desc"]
    for dep in stage["deps"]:
        if not dep.startswith(("src/", "${data.path}")) and "." in Path(dep).name:
            assert dep.split("/")[0] in stage["cmd"]
