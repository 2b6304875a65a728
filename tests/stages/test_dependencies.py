"""The code that a stage depends on: all that it uses, and for the stages that cost minutes nothing else."""

import ast
import re
from contextlib import closing
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from dvc.repo import Repo

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "reverse_perturbation"
# What these do shows in params (tracked by themselves), or cannot change a result.
PLUMBING = {
    "config",
    "sections",
    "errors",
    "storage",
    "gpu",
    "models/device",
    "stages",
    "stages/arguments",
    "stages/ending",
}
FITS = ("baseline", "pretrain", "finetune", "embed")
# Modules that a stage finds by a name in params.yaml.
BY_NAME = {
    "vocab_map": ["models/scgpt/encoder/checkpoint"],
    "baseline": ["models/baselines/{item}"],
    "pretrain": ["models/scgpt/pretrain"],
    "finetune": ["models/scgpt/encoder/checkpoint"],
    "embed": ["models/scgpt/encoder/checkpoint"],
}
# From the top: a room imports only from rooms before it.
ROOMS = [
    "errors",
    "conditions",
    "sections",
    "config",
    "storage",
    "gpu",
    "runs",
    "data/screen",
    "data",
    "prepare",
    "metrics",
    "retrieval",
    "comparison",
    "models/device",
    "models/encoder",
    "models/ranker",
    "models/linear",
    "models/recipe",
    "models/baselines",
    "models/combine",
    "models/finetune/network",
    "models/finetune/inference",
    "models/finetune/training",
    "models/embed",
    "models/scgpt/encoder",
    "models/scgpt",
    "analysis",
    "report",
    "stages",
    "studies",
    "cli",
    "__main__",
]

with closing(Repo(str(ROOT))) as repo:
    STAGES = {stage.name: stage for stage in repo.index.stages}
CODE = {
    name: [Path(dep.def_path) for dep in stage.deps if dep.def_path.startswith("src/")]
    for name, stage in STAGES.items()
}


@cache
def module_file(name: str) -> Path | None:
    path = PACKAGE.joinpath(*name.split(".")[1:])
    return next((found for found in (path.with_suffix(".py"), path / "__init__.py") if found.exists()), None)


@cache
def imported(path: Path) -> set[Path]:
    """Project modules that a file imports when it runs, anywhere in it; packages that hold no code left out."""
    tree = ast.parse(path.read_text())
    tree.body = [
        node for node in tree.body if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("reverse_perturbation"):
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names if alias.name.startswith("reverse_perturbation")}
    files = {file for name in names if (file := module_file(name)) is not None}
    return {file for file in files if file != path and holds_code(file)}


@cache
def holds_code(file: Path) -> bool:
    return any(not isinstance(node, ast.Expr) for node in ast.parse(file.read_text()).body)


def label(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").as_posix().removesuffix("/__init__")


def needed(*paths: Path) -> set[Path]:
    """Project modules that some files need, themselves included, without plumbing."""
    found, todo = set(), list(paths)
    while todo:
        if (file := todo.pop()) not in found:
            found.add(file)
            todo += imported(file)
    return {file for file in found if label(file) not in PLUMBING}


def used(name: str) -> set[Path]:
    """Modules that a stage uses: its own, what that imports, and what it finds by name."""
    kind, _, item = name.partition("@")
    entry = re.search(r"reverse_perturbation\.stages\.\w+", STAGES[name].cmd)
    assert entry is not None
    by_name = [PACKAGE / f"{path.format(item=item)}.py" for path in BY_NAME.get(kind, [])]
    return needed(module_file(entry[0]), *by_name)


def used_in_loop(name: str) -> set[Path]:
    """Modules that any stage of the same loop uses: what one baseline needs is a dependency of all."""
    return set().union(*(used(other) for other in STAGES if other.split("@")[0] == name.split("@")[0]))


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_all_code_it_uses_and_on_no_file_it_does_not(name):
    code = [ROOT / path for path in CODE[name]]
    missing = {label(file) for file in used(name) if not any(file == dep or dep in file.parents for dep in code)}
    assert not missing
    assert all(path.exists() for path in code)
    files = [path for path in code if path.suffix == ".py" and holds_code(path)]
    assert not [path for path in files if path not in used_in_loop(name)]


@pytest.mark.parametrize("name", [name for name in STAGES if name.split("@")[0] in FITS[1:]])
def test_a_fit_uses_every_file_of_the_folders_it_depends_on(name):
    folders = [ROOT / path for path in CODE[name] if path.suffix == ""]
    files = {file for folder in folders for file in folder.rglob("*.py") if holds_code(file)}
    assert {label(file) for file in files - used(name)} <= PLUMBING


def test_report_analysis_comparison_and_an_added_metric_make_no_fit_stale():
    rooms = ("report", "analysis", "comparison", "studies", "stages/report.py", "metrics/registry.py")
    rooms = [PACKAGE / room for room in rooms]
    for name in STAGES:
        if name.split("@")[0] in FITS:
            touched = [
                path for path in CODE[name] for room in rooms if room == ROOT / path or room in (ROOT / path).parents
            ]
            assert not touched, name


def test_no_stage_lists_its_code_file_by_file():
    """Where folders can say it: a stage that costs minutes has about eight entries, and none has many."""
    assert max(len(CODE[name]) for name in STAGES) <= 14
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) <= 450


def test_imports_go_one_way():
    files = [file for file in PACKAGE.rglob("*.py") if holds_code(file)]
    for file in files:
        for other in imported(file):
            assert room(file) >= room(other), f"{label(file)} imports {label(other)}"
    list(TopologicalSorter({file: imported(file) for file in files}).static_order())  # raises on a circle


def room(file: Path) -> int:
    path = label(file)
    fitting = [place for place in ROOMS if path == place or path.startswith(f"{place}/")]
    assert fitting, f"{path} is in no room: add it to ROOMS"
    return ROOMS.index(max(fitting, key=len))
