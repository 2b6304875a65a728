"""What params.yaml gives reaches a stage as one argument: the shell that DVC starts does not read it."""

import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from dvc.repo import Repo

from tests.end_to_end.pipeline import ROOT, params, yaml

BIN = Path(sys.executable).parent
HARMFUL = ["0; touch harm", "$(touch harm)", "`touch harm`", "'; touch harm; '", '"; touch harm; "', "0 && touch harm"]


def repository(folder: Path, **changes) -> Path:
    """The pipeline with some parameters changed, and a folder in place of everything that its stages depend on."""
    shutil.copy(ROOT / "dvc.yaml", folder)
    with (folder / "params.yaml").open("w") as file:
        yaml.dump(params(data={"path": "data/norman_conditions.csv"}) | changes, file)
    with closing(Repo.init(str(folder), no_scm=True)) as repo:
        for name in {dep.def_path for stage in repo.index.stages for dep in stage.deps} - {"params.yaml"}:
            (folder / name).mkdir(parents=True, exist_ok=True)
    return folder


def dvc(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(["dvc", *arguments], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(("key", "stage"), [("seeds", "finetune"), ("seeds", "embed"), ("baselines", "baseline")])
def test_no_value_is_run_as_a_command(tmp_path, key, stage):
    """`echo` stands for Python, so that the shell reads every command and nothing more happens."""
    changes = {key: HARMFUL} | {value: {} for value in HARMFUL}
    folder = repository(tmp_path, **changes, launcher="echo")
    text = (folder / "dvc.yaml").read_text()
    (folder / "dvc.yaml").write_text(text.replace("stages: python -m ", "stages: echo "))
    for value in HARMFUL:
        done = dvc(folder, "repro", "--single-item", "--force", f"{stage}@{value}")
        assert value in done.stdout, done.stderr
    assert not (folder / "harm").exists()


def test_no_name_of_a_model_is_run_as_a_command(tmp_path):
    folder = repository(tmp_path, models=[HARMFUL[0]], **{HARMFUL[0]: {}})
    for stage in ("finetune@0", "embed@0"):
        done = dvc(folder, "repro", "--single-item", "--force", stage)
        assert "error: params.yaml: models: Value error, give a foundation model" in done.stderr
    assert not (folder / "harm").exists()


@pytest.mark.parametrize("name", ["stages", "screen", "training"])
def test_params_may_not_redefine_a_part_of_the_commands(tmp_path, name):
    (tmp_path / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    with (tmp_path / "params.yaml").open("w") as file:
        yaml.dump(params() | {name: "touch harm;"}, file)
    Repo.init(str(tmp_path), no_scm=True).close()
    done = subprocess.run(
        [Path(sys.executable).with_name("dvc"), "repro"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "redefine" in done.stderr
    assert not (tmp_path / "harm").exists()
