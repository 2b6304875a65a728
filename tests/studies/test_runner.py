"""Rows of a preset as experiments of a small repository, by DVC itself."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.api import DVCFileSystem

from reverse_perturbation.errors import InputError
from reverse_perturbation.studies import ablation, runner
from reverse_perturbation.studies.presets import load_preset, parse_overrides, resolve
from reverse_perturbation.studies.reports import git
from reverse_perturbation.studies.runner import commit_of, locate, main, make, uncommitted
from tests.end_to_end.pipeline import ROOT
from tests.studies.conftest import DVC_YAML, PRESET, commit

OWN, ALL = "experiments: 1/2 toy-own", "experiments: 2/2 toy-all"


def rows(*overrides):
    preset = load_preset("toy", parse_overrides(overrides))
    return {name: locate(row) for name, row in resolve(preset).items()}


def content(row, file="copy.txt"):
    revision = commit_of(row)
    assert revision is not None
    return DVCFileSystem(rev=revision).read_text(file)


def dvc(*arguments):
    subprocess.run(["dvc", *arguments], check=True, capture_output=True)


@pytest.mark.slow
def test_rows_are_made_once_and_the_working_tree_stays(repository, capfd):
    before = (repository / "copy.txt").read_text()
    assert main(["toy"]) == 0
    said = capfd.readouterr().out
    assert f"{OWN}\n" in said
    assert f"{ALL}\n" in said
    assert said.index(OWN) < said.index("Running stage 'first'"), "DVC's output passes through"
    assert (repository / "copy.txt").read_text() == before
    assert not uncommitted()
    made = {name: (commit_of(row), content(row)) for name, row in rows().items()}
    assert {name: text for name, (_, text) in made.items()} == {"own": "table\nown\n", "all": "table\nall_targets\n"}
    assert main(["toy"]) == 0
    assert capfd.readouterr().out.splitlines() == [f"{OWN}: already run", f"{ALL}: already run"]
    assert main(["toy", "o*", "--force"]) == 0
    assert "experiments: 1/1 toy-own\n" in capfd.readouterr().out
    assert {name: commit_of(row) for name, row in rows().items()}["all"] == made["all"][0], "not asked for"


@pytest.mark.slow
def test_a_row_with_other_settings_or_from_another_commit_is_made_again(repository):
    assert main(["toy", "own", "-S", "split.seed=7"]) == 0
    assert commit_of(rows("split.seed=7")["own"]) is not None
    assert commit_of(rows()["own"]) is None
    assert main(["toy", "own"]) == 0
    assert commit_of(rows()["own"]) is not None
    assert commit_of(rows("split.seed=7")["own"]) is None, "its name has gone to the other"
    (repository / "src/reverse_perturbation/code.py").write_text("changed = True\n")
    commit()
    assert commit_of(rows()["own"]) is None
    assert main(["toy", "own"]) == 0
    assert commit_of(rows()["own"]) is not None
    found = subprocess.run(["git", "for-each-ref", "refs/exps/*/*/toy-own"], capture_output=True, text=True).stdout
    assert found.count("\n") == 1


def test_a_row_that_did_not_come_to_its_targets_does_not_count(repository):
    row = rows("pretrain.epochs=0")["own"]
    dvc("exp", "run", "--temp", "-n", "toy-own", "-S", "mask=own", "-S", "pretrain.epochs=0", "first")
    assert commit_of(row) is None
    assert make({"own": row}) == {}
    assert content(row) == "table\nown\n"


@pytest.mark.slow
def test_what_a_killed_process_leaves_does_not_count_and_is_removed(repository):
    preset = repository / "experiments" / "toy.yaml"
    preset.write_text(PRESET.replace("pretrain.epochs: 0", "pretrain.epochs: 60"))
    commit()
    row = rows()["own"]
    command = ["dvc", "exp", "run", "--temp", "-n", "toy-own", "-S", "mask=own", "-S", "pretrain.epochs=60", "second"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as running:
        assert any("Running stage 'first'" in line for line in iter(running.stdout.readline, ""))
        with pytest.raises(InputError, match=f"toy-own: process {running.pid} is making it"):
            make({"own": row})
        os.killpg(running.pid, signal.SIGKILL)
    shown = subprocess.run(["dvc", "exp", "show", "--csv"], capture_output=True, text=True).stdout
    assert "toy-own" in shown, "DVC takes it for a row that runs"
    assert commit_of(row) is None
    preset.write_text(PRESET)
    commit()
    assert main(["toy", "own"]) == 0
    assert content(rows()["own"]) == "table\nown\n"
    assert not list(Path(".dvc/tmp/exps/standalone").glob("tmp*"))
    assert "Running" not in subprocess.run(["dvc", "exp", "show", "--csv"], capture_output=True, text=True).stdout


@pytest.mark.slow
def test_rows_that_failed_are_named_with_the_reason_and_the_others_made(repository, capfd):
    (repository / "experiments" / "toy.yaml").write_text(PRESET.replace("rows:", "rows:\n  none: {mask: none}"))
    commit()
    assert main(["toy"]) == 1
    assert "experiments: failed: toy-none: the mask none is refused\n" in capfd.readouterr().err
    made = rows()
    assert commit_of(made["none"]) is None
    assert content(made["all"]) == "table\nall_targets\n"


@pytest.mark.slow
@pytest.mark.parametrize("failing", [False, True])
def test_workers_take_rows_from_the_queue(repository, capfd, monkeypatch, failing):
    monkeypatch.setattr(runner, "POLL", 1.0)
    if failing:
        (repository / "experiments" / "toy.yaml").write_text(PRESET.replace("rows:", "rows:\n  none: {mask: none}"))
        commit()
    assert main(["toy", "-j", "2"]) == (1 if failing else 0)
    said = capfd.readouterr()
    assert ("experiments: failed: toy-none: the mask none is refused\n" in said.err) == failing
    assert content(rows()["own"]) == "table\nown\n"
    assert content(rows()["all"]) == "table\nall_targets\n"
    assert main(["toy", "own", "all", "-j", "2"]) == 0
    again = [f"{OWN}: already run", f"{ALL}: already run"]
    assert capfd.readouterr().out.splitlines() == again + ["experiments: not yet run: none"] * failing


def test_a_relative_path_that_git_does_not_track_is_found(repository, monkeypatch):
    assert main(["toy", "own", "-S", "data.path=data/raw/cells.txt"]) == 0
    row = rows("data.path=data/raw/cells.txt")["own"]
    assert row.params.data.path == str(repository / "data" / "raw" / "cells.txt")
    assert content(row) == "cells\nown\n"
    (repository / "data" / "raw" / "cells.txt").write_text("other cells\n")
    assert commit_of(row) is None, "it was made from another file"
    assert rows()["own"].params.data.path == "data/norman_conditions.csv", "what git tracks is where it was"
    elsewhere = repository.parent / "elsewhere.txt"
    elsewhere.write_text("cells\n")
    monkeypatch.setenv("HOME", str(repository.parent))
    for path in (str(elsewhere), "../elsewhere.txt", "~/elsewhere.txt"):
        found = Path(rows(f"data.path={path}")["own"].params.data.path)
        assert found.is_absolute()
        assert found.samefile(elsewhere)


def test_a_file_that_dvc_tracks_is_in_an_experiment_of_its_own_folder(repository):
    """With the real .gitignore: DVC once refused to add it, and did not look into a folder whose files are ignored."""
    shutil.copy(ROOT / ".gitignore", repository)
    dvc("add", "data/raw/cells.txt")
    commit()
    assert "data/raw/cells.txt.dvc" in git("ls-files").splitlines()
    assert "data/raw/cells.txt" not in git("ls-files").splitlines()
    dvc("exp", "run", "--temp", "-n", "mine", "-S", "data.path=data/raw/cells.txt", "second")
    assert DVCFileSystem(rev="mine").read_text("copy.txt") == "cells\nall_targets\n"


def test_nothing_runs_with_a_mistake_in_a_row_or_changes_without_a_commit(repository, monkeypatch):
    monkeypatch.setattr(runner, "make", lambda *_: pytest.fail("something was run"))
    with pytest.raises(InputError, match=r"data\.path: none\.h5ad: no such file"):
        main(["toy", "-S", "data.path=none.h5ad"])
    with pytest.raises(InputError, match=r"toy\.yaml: row own: split\.seed: .*found -1"):
        main(["toy", "-S", "split.seed=-1"])
    with pytest.raises(InputError, match=r"toy\.yaml: no row other; it has own, all"):
        main(["toy", "other"])
    with pytest.raises(SystemExit, match="2"):
        main(["toy", "-j", "-1"])
    (repository / "copy.txt").write_text("changed\n")
    with pytest.raises(InputError, match=r"uncommitted changes in copy\.txt: commit them first"):
        main(["toy"])


@pytest.mark.parametrize("name", ["experiments/mine.yaml", "src/reverse_perturbation/mine.py"])
def test_a_new_preset_or_file_of_code_must_be_committed_first(repository, name):
    """In its own folder an experiment has what git knows."""
    (repository / name).write_text((repository / "experiments" / "toy.yaml").read_text() if "yaml" in name else "")
    (repository / "notes.txt").write_text("of no result")
    with pytest.raises(InputError, match=rf"uncommitted changes in {name}: commit them first"):
        main(["toy"])


def test_reports_of_presets_are_no_uncommitted_changes(repository):
    report = repository / "results" / "reports" / "toy.md"
    report.parent.mkdir(parents=True)
    report.write_text("before\n")
    commit()
    report.write_text("after\n")
    assert not uncommitted()


def test_the_report_is_written_when_all_rows_are_made(repository, capsys, monkeypatch):
    (repository / "experiments" / "toy.yaml").write_text(f"{PRESET}report: ablation\n")
    commit()
    written = []
    monkeypatch.setattr(ablation, "write", lambda preset, rows, about: written.append((preset, rows, about)))
    assert main(["toy", "--report"]) == 1
    assert "no report before all rows of toy have run; not yet: own, all" in capsys.readouterr().out
    assert main(["toy", "own"]) == 0
    assert not written
    assert main(["toy", "all"]) == 0
    assert main(["toy", "--report"]) == 0
    (preset, made, about), again = written
    assert again[2] == about
    assert preset.name == about["preset"] == "toy"
    assert made["own"].files.read_text("copy.txt") == "table\nown\n"
    assert made["own"].params.mask == "own"


@pytest.mark.slow
def test_a_preset_without_a_report_ends_with_a_table_of_the_rows_that_are_made(repository, capsys):
    """Rows that did not run `compare` have the branch's comparison.json: no figures of their own."""
    figures = {
        "provenance": {"models": ["scgpt"], "queries": 1234},
        "scgpt": {"mrr": 0.4},
        "logreg": {"mrr": 0.3},
        "lda": {"mrr": 0.35},
        "strongest": {"baseline": "lda"},
        "gap": {"mrr": 0.1},
        "interval": {"mrr": {"low": 0.05, "high": 0.15}},
    }
    (repository / "figures.json").write_text(json.dumps(figures))
    (repository / "dvc.yaml").write_text(
        f"{DVC_YAML}  compare:\n    cmd: mkdir -p metrics && cp figures.json metrics/comparison.json\n"
        "    deps: [copy.txt]\n    metrics: [metrics/comparison.json: {cache: false}]\n"
    )
    dvc("repro", "-q")
    (repository / "experiments" / "toy.yaml").write_text(PRESET.replace("second", "compare"))
    (repository / "experiments" / "less.yaml").write_text(PRESET)
    commit()
    assert main(["toy", "own"]) == 0
    said = capsys.readouterr().out
    head, _, row = (line for line in said.splitlines() if line.startswith("|"))
    assert head == "| row | queries | scgpt | logreg | strongest | its mrr | scgpt - logreg | 95 % low | 95 % high |"
    assert row == "| own | 1,234 | 0.400 | 0.300 | lda | 0.350 | 0.100 | 0.050 | 0.150 |"
    assert said.splitlines()[-1] == "experiments: not yet run: all"
    assert main(["toy", "--report"]) == 1
    assert row in capsys.readouterr().out
    assert main(["less"]) == 0
    assert "\n|" not in capsys.readouterr().out


def test_presets_are_listed(repository, capsys):
    assert main([]) == 0
    assert capsys.readouterr().out == "toy: 2 rows. Rows of a test.\n"


def test_the_code_beside_an_experiment_runs_not_the_installed(tmp_path, monkeypatch):
    package = tmp_path / "src" / "reverse_perturbation"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("print('beside')")
    monkeypatch.chdir(tmp_path)
    assert runner._run([sys.executable, "-c", "import reverse_perturbation"]) == "beside\n"
