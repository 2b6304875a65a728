"""Reports belong to code of this repository and agree with their JSON; a stale one is named with the reason."""

import json
import shutil
import subprocess
from importlib import import_module

import pytest

from reverse_perturbation.report.markdown import markdown
from reverse_perturbation.storage import read_json
from reverse_perturbation.studies.presets import load_preset, resolve
from reverse_perturbation.studies.reports import (
    FOLDER,
    OVERVIEW,
    PACKAGE,
    compact,
    git,
    main,
    outdated,
    provenance,
    rounded,
    save,
)
from reverse_perturbation.studies.screens import write_overview
from tests.end_to_end.pipeline import ROOT
from tests.studies.conftest import PRESET, commit

REPORTS = (
    "norman_subset",
    "papalexi",
    "norman_singles",
    "norman_full",
    "norman_full_cpu",
    "norman_scale",
    "ablation",
    "learning_curve",
)


@pytest.fixture
def root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def report(root, name):
    """The figures of a preset."""
    path = FOLDER / f"{name}.json"
    if not path.exists():
        pytest.skip(f"{path} is not made yet: reverse-perturbation experiments {name}")
    return read_json(path)


def trees():
    """The tree of the package at every commit that changed it."""
    if git("rev-parse", "--is-shallow-repository") == "true":
        pytest.skip("a shallow clone: its history does not have the code of the reports (git fetch --unshallow)")
    commits = git("rev-list", "HEAD", "--", PACKAGE).splitlines()
    listed = subprocess.run(
        ["git", "cat-file", "--batch-check=%(objectname)"],
        input="".join(f"{commit}:{PACKAGE}\n" for commit in commits),
        capture_output=True,
        text=True,
    )
    return set(listed.stdout.split())


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_was_made_by_code_of_this_history(report, name):
    code = report["provenance"]["code"]
    assert code in trees(), f"{name}.json claims code that no commit has; make the report again from a commit"


@pytest.mark.parametrize("name", REPORTS)
def test_page_and_json_agree_in_code_preset_and_every_figure_of_the_main_table(report, name):
    page = (FOLDER / f"{name}.md").read_text()
    assert report["provenance"]["preset"] == name
    assert f"`{report['provenance']['code'][:12]}`" in page
    assert f"`reverse-perturbation experiments {name}" in page
    module = import_module(f"reverse_perturbation.studies.{load_preset(name).report}")
    assert markdown(module.main_table(report)) in page


@pytest.mark.parametrize("name", REPORTS)
def test_the_figures_are_compact_and_of_every_row(report, name):
    text = (FOLDER / f"{name}.json").read_text()
    assert text.count("\n") < 500
    assert report["rows"].keys() == load_preset(name).rows.keys()


def test_the_page_of_all_screens_is_made_of_their_reports(root, tmp_path):
    page = FOLDER / f"{OVERVIEW}.md"
    if not page.exists():
        pytest.skip(f"{page} is not made yet: make screens")
    for name in REPORTS:
        if (FOLDER / f"{name}.json").exists():
            shutil.copy(FOLDER / f"{name}.json", tmp_path)
    write_overview(tmp_path)
    for ending in (".md", ".json"):
        written = (tmp_path / OVERVIEW).with_suffix(ending).read_text()
        assert (FOLDER / OVERVIEW).with_suffix(ending).read_text() == written, "make one of the reports again"


def test_every_preset_with_a_report_is_listed(root, capsys):
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"{FOLDER / name}.md" for name in sorted(REPORTS)]
    assert all(line.split(": ")[1] in ("current", "stale") for line in lines)


@pytest.fixture
def reported(repository):
    """The small repository with a report of its preset."""
    (repository / "experiments" / "toy.yaml").write_text(f"{PRESET}report: ablation\n")
    commit()
    preset = load_preset("toy")
    save({"provenance": provenance(preset, resolve(preset)), "rows": {}}, ["# A page", "", "with two parts"], FOLDER)
    return repository


def state(capsys):
    code = main(["--fail"])
    (line,) = capsys.readouterr().out.splitlines()
    path, what = line.split(": ", 1)
    assert path == "results/reports/toy.md"
    assert code == (0 if what == "current" else 1)
    assert main([]) == 0
    capsys.readouterr()
    return what


def test_a_report_is_current_until_code_settings_or_data_change(reported, capsys):
    assert (reported / FOLDER / "toy.md").read_text() == "# A page\n\nwith two parts\n"
    assert state(capsys) == "current"
    for room in ("report", "studies"):
        file = reported / PACKAGE / room / "words.py"
        file.parent.mkdir()
        file.write_text("changed = True\n")
    (reported / PACKAGE / "cli.py").write_text("changed = True\n")
    commit()
    assert state(capsys) == "current", "what only writes reports decides no result"
    (reported / PACKAGE / "code.py").write_text("changed = True\n")
    commit()
    assert state(capsys) == "stale: code changed: 1 file, code.py"
    preset = reported / "experiments" / "toy.yaml"
    preset.write_text(preset.read_text().replace("pretrain.epochs: 0", "pretrain.epochs: 1"))
    (reported / "data" / "norman_conditions.csv").write_text("another table\n")
    assert state(capsys) == (
        "stale: code changed: 1 file, code.py; experiments/toy.yaml or params.yaml changed; "
        "data/norman_conditions.csv is another file"
    )


def test_a_report_that_is_missing_or_says_nothing_is_stale(reported, capsys):
    path = reported / FOLDER / "toy.json"
    about = read_json(path)
    path.write_text(json.dumps(about | {"provenance": about["provenance"] | {"code": "0" * 40}}))
    assert state(capsys) == "stale: its code 000000000000 is not in this repository (a shallow clone?)"
    path.write_text('{"provenance": {}}')
    assert outdated(load_preset("toy")) == ["it does not say what made it"]
    path.unlink()
    assert state(capsys) == "stale: results/reports/toy.json is missing"


def test_the_provenance_says_what_made_a_report(reported):
    about = read_json(reported / FOLDER / "toy.json")["provenance"]
    assert about["code"] == git("rev-parse", f"HEAD:{PACKAGE}")
    assert about["data_sha256"].keys() == {"norman_conditions.csv"}
    assert about["seeds"] == [0, 1]
    assert about["models"] == ["scgpt", "fusion"]


def test_json_is_compact_and_the_same():
    content = {"a": {"b": 0.1234567891, "c": [1, 2]}, "d": {"e": {"f": 1.0}, "g": "x" * 220}, "h": None}
    text = compact(rounded(content))
    assert json.loads(text) == content | {"a": {"b": 0.123457, "c": [1, 2]}}
    assert '\n  "a": {"b": 0.123457, "c": [1, 2]},\n' in text
