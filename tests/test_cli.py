"""The command ``reverse-perturbation``: its subcommands, and mistakes in one line."""

import subprocess
import sys

import pytest

from reverse_perturbation.cli import COMMANDS, main
from tests.end_to_end.pipeline import ROOT


@pytest.fixture(autouse=True)
def root(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", sys.argv)  # put back after the test


def test_help_is_there_at_once_and_names_every_command():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "reverse_perturbation", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout
    loaded = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert not loaded & {"numpy", "pandas", "torch", "dvc", "pydantic"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])
    assert f"usage: reverse-perturbation {name}" in capsys.readouterr().out


def test_check_is_the_verdict(tmp_path, capsys):
    assert main(["check", "--comparison", str(tmp_path / "none.json")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_a_mistake_is_one_line(capsys):
    assert main(["experiments", "nothing"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: experiments/nothing.yaml: no such preset; there are ablation, ")
    assert error.count("\n") == 1


def test_stages_are_listed_with_their_description(capsys):
    assert main(["stages"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} > {"prepare", "split", "finetune", "compare", "report"}
    assert all(len(line.split()) > 2 for line in lines)


def test_a_stage_is_run_with_its_arguments(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["stages", "split", "--help"])
    assert "--output" in capsys.readouterr().out
    for name in ("nothing", "arguments", "../split"):
        assert main(["stages", name]) == 2
        assert capsys.readouterr().err == f"error: no stage {name}; `reverse-perturbation stages` lists them\n"


def test_outside_of_the_repository(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["stages"]) == 2
    assert "run from the repository root" in capsys.readouterr().err
