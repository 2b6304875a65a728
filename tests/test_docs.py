"""What the docs tell a reader to write works as it stands there; what they name is there."""

import re
import runpy
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
from ruamel.yaml import YAML

from reverse_perturbation.comparison.compare import Run, check_aligned
from reverse_perturbation.storage import read_json
from tests.end_to_end.pipeline import ROOT, inside, params, run
from tests.stages.test_dependencies import imported, needed

DOCS = sorted([*ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "models" / "README.md"])


def block(document: str, language: str) -> str:
    (text,) = re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs" / document).read_text(), flags=re.S)
    return text


def call(target: Path | str, *arguments: str) -> None:
    with patch.object(sys, "argv", [str(target), *arguments]):
        if isinstance(target, Path):
            runpy.run_path(str(target), run_name="__main__")
        else:
            sys.modules.pop(target, None)
            runpy.run_module(target, run_name="__main__")


def test_a_model_added_as_the_docs_say_is_evaluated_like_the_others(tmp_path):
    """Its own stage, then what every model goes through; it is better than chance on simulated cells."""
    run(tmp_path, params(), until="logreg@logreg")
    module = tmp_path / "centroid.py"
    module.write_text(block("adding.md", "python"))
    (stage,) = YAML(typ="safe").load(block("adding.md", "yaml")).values()
    command = stage["cmd"].split()
    assert command[:3] == ["python", "-m", "reverse_perturbation.stages.centroid"]
    inputs = ["--cells", "data/prepared/cells.h5ad", "--split", "data/split/split.csv"]
    with inside(tmp_path):
        call(module, *command[3:])
        call(
            "reverse_perturbation.stages.evaluate", *inputs, "--models", "centroid", "logreg", "--outputs",
            "data/outputs", "--metrics", "metrics", "--scores", "data/scores",
        )  # fmt: skip
        check_aligned([Run.load(f"{name}-42", "metrics", "data/scores") for name in ("logreg", "centroid")])
    found = read_json(tmp_path / "metrics" / "centroid-42.json")
    assert found["exact_hit@1"] > 1.5 / found["provenance"]["conditions"]


def test_the_stage_in_the_docs_names_the_code_it_uses(tmp_path):
    module = tmp_path / "centroid.py"
    module.write_text(block("adding.md", "python"))
    (stage,) = YAML(typ="safe").load(block("adding.md", "yaml")).values()
    uses = set().union(*(needed(file) for file in imported(module)))
    named = {dep for dep in stage["deps"] if dep.endswith(".py")} - {"src/reverse_perturbation/stages/centroid.py"}
    assert named == {file.relative_to(ROOT).as_posix() for file in uses}


@pytest.mark.parametrize("document", DOCS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_and_scripts_in_the_docs_are_there(document):
    text = document.read_text()
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("http") or (document.parent / link).exists(), link
    for name in re.findall(r"(?:scripts|tests)/[\w/]+\.(?:sh|py)", text):
        assert (ROOT / name).exists(), name


def test_every_setting_in_the_docs_is_a_key():
    keys = YAML(typ="safe").load(ROOT / "params.yaml")
    for document in DOCS:
        for name in re.findall(r"-S '?\"?([\w.]+)=", document.read_text()):
            section = keys
            for part in name.split("."):
                assert part in section, f"{document.name}: {name}"
                section = section[part]


def test_the_tables_of_experiments_in_the_docs_have_names_and_columns():
    """DVC holds each pattern against a column's name from its beginning, and without the names no row can be told."""
    columns = {"Experiment", *paths(YAML(typ="safe").load(ROOT / "params.yaml"))}
    columns |= set(paths(read_json(ROOT / "metrics" / "comparison.json")))
    files = [f"metrics/{name}-42.json" for name in ("logreg_default", "pca")]
    columns |= {f"{file}:{path}" for file in files for path in paths(read_json(ROOT / file))}
    shown = [
        keep for page in DOCS for keep in re.findall(r"dvc exp show --drop '\.\*' --keep '([^']+)'", page.read_text())
    ]
    assert len(shown) >= 5
    for keep in shown:
        assert keep.startswith("Experiment|"), keep
        for pattern in re.split(r"\|(?![^(]*\))", keep):
            assert any(re.match(pattern, column) for column in columns), pattern


def paths(content, prefix=""):
    """The names DVC gives the leaves of a file."""
    for key, value in content.items():
        yield from paths(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}"]
