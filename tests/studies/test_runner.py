"""Experiments of a small repository, by DVC itself: their files, the time of their stages, and the run-cache."""

import subprocess

import pytest

from reverse_perturbation.studies.runner import run_experiment, uncommitted

DVC_YAML = """
stages:
  slow:
    cmd: sleep ${nap} && echo ${word} > word.txt
    params: [nap, word]
    outs: [word.txt]
  quick:
    cmd: test ${word} != wrong && cp word.txt copy.txt
    params: [word]
    deps: [word.txt]
    outs:
      - copy.txt: {cache: false}
"""


@pytest.fixture
def repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text(DVC_YAML)
    (tmp_path / "params.yaml").write_text("nap: 0\nword: first\n")
    for command in (
        "git init -q",
        "git config user.email someone@example.org",
        "git config user.name Someone",
        "dvc init -q",
        "dvc config core.analytics false",
        "dvc repro -q",
        "git add -A",
        "git commit -qm start",
    ):
        subprocess.run(command.split(), check=True, capture_output=True)
    return tmp_path


def test_an_experiment_leaves_the_working_tree_and_says_what_its_stages_took(repository):
    files, seconds = run_experiment("other", {"nap": "1.5", "word": "second"})
    assert (repository / "copy.txt").read_text() == "first\n"
    assert files.read_text("word.txt") == files.read_text("copy.txt") == "second\n"
    assert seconds.keys() == {"slow", "quick"}
    assert seconds["slow"] >= 1.5 > seconds["quick"]
    again, seconds = run_experiment("other", {"nap": "1.5", "word": "second"})
    assert again.read_text("copy.txt") == "second\n"
    assert "slow" not in seconds, "from the run-cache"


def test_only_what_is_asked_for(repository):
    files, seconds = run_experiment("part", {"word": "second"}, "slow")
    assert seconds.keys() == {"slow"}
    assert files.read_text("copy.txt") == "first\n"


def test_an_experiment_that_fails(repository):
    with pytest.raises(subprocess.CalledProcessError):
        run_experiment("broken", {"word": "wrong"})


def test_uncommitted_changes(repository):
    assert not uncommitted()
    (repository / "params.yaml").write_text("nap: 0\nword: changed\n")
    assert "params.yaml" in uncommitted()
