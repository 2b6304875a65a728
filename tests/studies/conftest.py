"""Fixtures of the tests of studies."""

import shutil
import subprocess

import pytest

from tests.end_to_end.pipeline import ROOT, params, run

# The stages have keys of the real params.yaml; one of them refuses a mask.
DVC_YAML = """
stages:
  first:
    cmd: sleep ${pretrain.epochs} && mkdir -p out && cat ${data.path} > out/word.txt && echo ${mask} >> out/word.txt
    params: [pretrain.epochs, mask, data.path]
    deps: ["${data.path}", src]
    outs: [out/word.txt]
  second:
    cmd: |-
      test ${mask} != none || { echo 'error: the mask none is refused' >&2; exit 2; }
      cp out/word.txt copy.txt
    params: [mask, split.seed]
    deps: [out]
    outs:
      - copy.txt: {cache: false}
"""
PRESET = """
description: Rows of a test.
settings: {pretrain.epochs: 0}
rows:
  own: {mask: own}
  all: {mask: all_targets}
targets: [second]
"""


@pytest.fixture(scope="session")
def simulated(tmp_path_factory):
    """The folder of a run of the whole pipeline on a small screen."""
    folder = tmp_path_factory.mktemp("simulated")
    run(folder, params())
    return folder


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """A small repository: the real params.yaml, two stages that do little, a preset ``toy``."""
    folder = tmp_path_factory.mktemp("repository")
    shutil.copy(ROOT / "params.yaml", folder)
    for name, content in {
        "dvc.yaml": DVC_YAML,
        "experiments/toy.yaml": PRESET,
        "data/norman_conditions.csv": "table\n",
        "data/no_checkpoint/README.md": "",
        "src/reverse_perturbation/code.py": "",
        ".gitignore": "/data/raw/*\n",
        "data/raw/cells.txt": "cells\n",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    for command in (
        "git init -q",
        "git config user.email someone@example.org",
        "git config user.name Someone",
        "dvc init -q",
        "dvc config core.analytics false",
        "dvc config core.check_update false",
        "dvc repro -q",
        "git add -A",
        "git commit -qm start",
    ):
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def repository(template, tmp_path, monkeypatch):
    """A copy of the small repository, the folder one is in."""
    folder = tmp_path / "repository"
    shutil.copytree(template, folder)
    monkeypatch.chdir(folder)
    return folder


def commit():
    """Commit everything in the folder one is in."""
    subprocess.run(["git", "add", "-A"], check=True)
    subprocess.run(["git", "commit", "-qm", "changes"], check=True)
