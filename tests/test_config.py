"""A parameter file is right in every key or refused with the key's name."""

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from reverse_perturbation.config import Params, known_baselines, load_params
from reverse_perturbation.errors import InputError

DEFAULTS = Path(__file__).parents[1] / "params.yaml"


def changed(tmp_path: Path, old: str, new: str) -> Path:
    text = DEFAULTS.read_text()
    assert text.count(old) == 1
    path = tmp_path / "params.yaml"
    path.write_text(text.replace(old, new))
    return path


def test_the_defaults_are_valid():
    assert load_params(DEFAULTS).split.seed == 42


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("mask: all_targets", "mask: al_targets", "mask: .*found 'al_targets'"),
        (
            "  min_cells: 50 ",
            "  min_cels: 50 ",
            "split.min_cels: unknown key.*split.min_cells|split.min_cells",
        ),
        ("  min_query: 10 ", '  min_query: "10" ', "split.min_query: .*found '10'"),
        (
            "  max_iter: 500                    # maximum",
            "  max_iter: 500.5 # maximum",
            "logreg.max_iter: .*found 500.5",
        ),
        ("  query_fraction: 0.2 ", "  query_fraction: 1.2 ", "split.query_fraction: .*found 1.2"),
        ("mask: all_targets", "masks: all_targets", "mask: Field required"),
        ("mask: all_targets", "masks: all_targets", "masks: unknown key, remove it or correct its name"),
        ("logreg_genes:\n", "logreg_gene:\n", "logreg_gene: unknown key, remove it or correct its name"),
        ("labels: canonical", "labels: [", "not YAML"),
        ("  - 0\n  - 1\n", "  - 1\n  - 1\n", "seeds: .*listed twice"),
        ("  - fusion ", "  - logreg ", r"models: .*found \['scgpt', 'logreg'\]"),
        ("  - fusion ", "  - scgpt ", r"models: .*give a foundation model \(scgpt\), alone or followed by fusion"),
        ("  - scgpt\n", "  - geneformer\n", r"models: .*\(scgpt\).*found \['geneformer', 'fusion'\]"),
        (
            "  - logreg_genes\n",
            "  - forest\n",
            r"baselines: .*forest is no file of models/baselines, .*logreg_genes.*pca",
        ),
        ("  - logreg_genes\n", "  - pca\n", "baselines: .*listed twice"),
        ("  - pca\n", "", "baselines: .*pca is missing: the comparison and the analysis need logreg and pca"),
        ("    cross_entropy: 1.0 ", "    cross_entropy: 0.0 ", "finetune.loss: .*all 0; give at least one a weight$"),
        ("    kind: random ", "    kind: balance ", "finetune.sampler.kind: .*found 'balance'"),
    ],
)
def test_a_wrong_key_is_named(tmp_path, old, new, message):
    with pytest.raises(InputError, match=message):
        load_params(changed(tmp_path, old, new)).check_baselines()


def test_every_wrong_key_is_named_at_once(tmp_path):
    """One run of a stage shows them all, stray sections among them."""
    path = changed(tmp_path, "mask: all_targets", "masks: all_targets")
    path.write_text(path.read_text().replace("  min_cells: 50 ", "  min_cels: 50 ") + "\nforest:\n  trees: 10\n")
    with pytest.raises(InputError) as caught:
        load_params(path)
    for key in (
        "mask: Field",
        "masks: unknown",
        "split.min_cells: Field",
        "split.min_cels: unknown",
        "forest: unknown",
    ):
        assert key in str(caught.value)


# ---- baselines, whose sections are checked by their own files


def test_the_section_of_a_baseline_that_is_not_listed_may_stay(tmp_path):
    """Else leaving a baseline out would take two edits; its section is not checked."""
    path = changed(tmp_path, "  - logreg_genes\n", "")
    path.write_text(path.read_text().replace("logreg_genes:\n", "logreg_genes:\n  nonsense: true\n"))
    params = load_params(path)
    assert params.baselines == [name for name in load_params(DEFAULTS).baselines if name != "logreg_genes"]
    params.check_baselines()


def test_a_listed_baseline_needs_its_section(tmp_path):
    text = DEFAULTS.read_text()
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace(re.search(r"^pca:\n(?:  .*\n)+", text, flags=re.M)[0], ""))
    with pytest.raises(InputError, match=r"mine\.yaml: pca\.components: Field required; pca\.seed: Field required"):
        load_params(path).check_baselines()


@pytest.mark.parametrize("name", known_baselines())
def test_a_baseline_reads_its_section_checked_and_typed(name):
    """Every file of models/baselines declares its section; an unknown key in it is named with the section."""
    config = import_module(f"reverse_perturbation.models.baselines.{name}").Config
    content = YAML(typ="safe", pure=True).load(DEFAULTS)
    found = Params.model_validate(content).section(name, config)
    assert isinstance(found, config)
    assert found.model_dump() == content[name]
    content[name]["depht"] = 3
    with pytest.raises(InputError, match=rf"{name}\.depht: unknown key, remove it or correct its name, found 3"):
        Params.model_validate(content).section(name, config)


def test_all_listed_baselines_are_checked():
    for name in known_baselines():
        content = YAML(typ="safe", pure=True).load(DEFAULTS)
        content[name]["depht"] = 3
        with pytest.raises(InputError, match=rf"{name}\.depht"):
            Params.model_validate(content).check_baselines()


# ---- other keys


def test_balanced_batches_are_of_whole_conditions(tmp_path):
    path = changed(tmp_path, "    kind: random ", "    kind: balanced ")
    assert load_params(path).finetune.sampler.kind == "balanced"
    path.write_text(path.read_text().replace("cells_per_condition: 8 ", "cells_per_condition: 6 "))
    with pytest.raises(InputError, match=r"batch_size 64 is no multiple of cells_per_condition 6.*change one of them$"):
        load_params(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.yaml: no such file"):
        load_params(tmp_path / "none.yaml")


def test_a_number_as_dvc_writes_it_back_is_a_number(tmp_path):
    """``-S finetune.optimizer.backbone_learning_rate=1e-5`` is stored as 1e-05, a string to PyYAML."""
    path = changed(tmp_path, "backbone_learning_rate: 0.001", "backbone_learning_rate: 1e-05")
    assert load_params(path).finetune.optimizer.backbone_learning_rate == 1e-5


def test_every_key_with_a_value_says_what_it_is():
    """A user reads params.yaml, not the code."""
    for line in DEFAULTS.read_text().splitlines():
        key, _, value = line.partition(":")
        if value.strip() and not line.lstrip().startswith(("#", "-")):
            assert "# " in value, key


RANGES = {
    r"above 0 to 1": lambda: ([1e-9, 1.0], [0.0, 1 + 1e-9]),
    r"at least (\d+)": lambda low: ([low], [low - 1]),
    r"(\d+) to (\d+)": lambda low, high: ([low, high], [low - 1, high + 1]),
    r"between 0 and 1": lambda: ([1e-9, 1 - 1e-9], [0.0, 1.0]),
    r"0 to below 1": lambda: ([0.0, 1 - 1e-9], [-1e-9, 1.0]),
    r"above 0": lambda: ([1e-9], [0.0]),
}


def documented() -> Iterator[tuple[list[str], str]]:
    """Each key, its sections before it, and the comment beside it or above it."""
    path: list[str] = []
    for indent, key, comment in re.findall(r"^( *)(\w+):[^#\n]*(?:# (.*))?$", DEFAULTS.read_text(), flags=re.M):
        path = [*path[: len(indent) // 2], key]
        yield path, comment


def value_of(content: dict[str, Any], path: list[str]) -> Any:
    for name in path:
        content = content[name]
    return content


@pytest.mark.parametrize(("path", "comment"), documented(), ids=lambda x: ".".join(x) if isinstance(x, list) else "")
def test_what_a_key_can_be_is_said_beside_it(path, comment):
    content = YAML(typ="safe", pure=True).load(DEFAULTS)
    content["finetune"]["loss"]["supcon"] = 1.0  # not all of them may be 0
    *sections, last = path
    section, value = value_of(content, sections), value_of(content, path)
    if isinstance(value, dict):
        return
    assert comment
    first = value[0] if isinstance(value, list) else value
    if isinstance(first, bool):
        assert comment.startswith("true | false")
    if isinstance(first, bool | str | None):
        return
    bounds = next((bounds(*map(int, m.groups())) for p, bounds in RANGES.items() if (m := re.search(p, comment))), None)
    assert bounds, f"no range in {comment!r}"
    if last == "most":
        section["least"] = 1e-9  # it may not be below that
    for inside, values in zip((True, False), bounds, strict=True):
        for each in values:
            section[last] = [each] if isinstance(value, list) else each
            if inside:
                Params.model_validate(content).check_baselines()
            else:
                with pytest.raises((ValidationError, InputError), match=last):
                    Params.model_validate(content).check_baselines()


def test_the_screen_is_called_by_its_file_or_simulated():
    content = YAML(typ="safe", pure=True).load(DEFAULTS)
    assert Params.model_validate(content).data.name == "simulated"
    content["data"] |= {"source": "h5ad", "path": "data/raw/norman_subset.h5ad"}
    assert Params.model_validate(content).data.name == "norman_subset"
