"""Presets name keys that exist, with values they can have; a mistake is named with its file and key."""

import pytest

from reverse_perturbation.errors import InputError
from reverse_perturbation.studies import reports, runner
from reverse_perturbation.studies.presets import (
    load_preset,
    parse_overrides,
    preset_names,
    preset_sha256,
    resolve,
    select,
)
from reverse_perturbation.studies.rehearsal import CHECKPOINT
from tests.end_to_end.pipeline import ROOT

NAMES = sorted(path.stem for path in (ROOT / "experiments").glob("*.yaml"))


@pytest.fixture
def root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("name", NAMES)
def test_every_row_of_every_preset_is_a_valid_experiment(root, name):
    preset = load_preset(name)
    assert resolve(preset).keys() == preset.rows.keys()
    assert preset.rows


def test_all_experiments_have_names_of_their_own(root):
    assert preset_names() == NAMES
    experiments = [row.experiment for name in NAMES for row in resolve(load_preset(name)).values()]
    assert len(set(experiments)) == len(experiments)
    assert {"norman-subset-all-targets-42", "library-raw-cell-vote", "ablation-ema-0.99"} <= set(experiments)


def test_norman_scale_is_the_specification_s_protocol(root):
    (row,) = resolve(load_preset("norman_scale")).values()
    params = row.params
    assert (params.mask, params.labels, params.split.seed, len(params.seeds)) == ("own", "legacy", 42, 2)
    assert params.data.simulated.model_dump(exclude={"seed"}) == {
        "n_conditions": 282,
        "n_cells": 91_205,
        "n_genes": 5_045,
    }
    assert params.data.source == "simulated"


@pytest.mark.parametrize("name", ["norman_full", "norman_full_cpu"])
def test_the_full_run_has_the_specification_s_protocol_and_the_one_that_leaks_nothing(root, name):
    rows = {row: found.params for row, found in resolve(load_preset(name)).items()}
    found = {row: (p.mask, p.labels, p.split.seed, len(p.seeds)) for row, p in rows.items()}
    assert found == {"specification": ("own", "legacy", 42, 2), "leak_free": ("all_targets", "canonical", 42, 2)}
    assert all(params.data.source == "h5ad" and params.scgpt.given for params in rows.values())


def test_a_rehearsal_is_the_same_preset_on_simulated_cells(root):
    preset, rehearsal = load_preset("norman_full"), load_preset("norman_full", rehearsed=True)
    assert (rehearsal.name, rehearsal.file, rehearsal.rows) == ("norman_full_rehearsal", preset.file, preset.rows)
    (full, *_), (little, *_) = (list(resolve(p).values()) for p in (preset, rehearsal))
    assert little.experiment == "norman-full-rehearsal-specification"
    assert (little.params.data.source, little.params.finetune.schedule.epochs) == ("simulated", 1)
    assert little.params.finetune.adaptation == full.params.finetune.adaptation
    assert little.params.scgpt.given == str(CHECKPOINT), "which the runner writes"


def test_only_a_preset_with_settings_for_it_can_be_rehearsed(root):
    with pytest.raises(InputError, match=r"^experiments/mask.yaml: rehearsal: missing; "):
        load_preset("mask", rehearsed=True)


def test_the_norman_subset_has_three_splits_and_three_masks(root):
    rows = [row.params for row in resolve(load_preset("norman_subset")).values()]
    found = [(params.mask, params.split.seed) for params in rows]
    assert found == [("all_targets", 42), ("all_targets", 43), ("all_targets", 44), ("own", 42), ("none", 42)]
    assert all(params.seeds == [0, 1, 2, 3, 4] for params in rows)


@pytest.mark.parametrize("name", ["papalexi", "norman_singles"])
def test_no_setting_was_chosen_on_the_other_screens(root, name):
    """They have those of the subset, but for the cells, the splits and what saves time on a larger screen."""
    best = resolve(load_preset("norman_subset"))["all_targets-42"].params.model_dump()
    rows = [row.params for row in resolve(load_preset(name)).values()]
    by_cell, by_lane = ([(kind, seed) for seed in (42, 43, 44)] for kind in ("cell", "gem_group"))
    expected = by_lane + by_cell if name == "norman_singles" else by_cell
    assert [(params.split.kind, params.split.seed) for params in rows] == expected
    free = {"data": ["path"], "split": ["kind", "seed"], "tuning": ["folds"], "mlp": ["seeds", "epochs"]}
    for params in rows:
        assert params.data.path.endswith(f"{name}.h5ad")
        content = params.model_dump()
        for section, keys in free.items():
            content[section] |= {key: best[section][key] for key in keys}
        assert content == best | {"seeds": content["seeds"]}


def test_presets_of_real_cells_have_the_best_settings(root):
    best = resolve(load_preset("real_cells"))["best"].params
    assert best.data.source == "h5ad"
    for preset, row in (("norman_subset", "all_targets-42"), ("ablation", "default")):
        found = resolve(load_preset(preset))[row].params
        assert (found.finetune, found.data) == (best.finetune, best.data)


def test_the_ablation_has_the_rows_it_should_and_one_of_them_is_the_default(root):
    rows = resolve(load_preset("ablation"))
    assert {
        "frozen",
        "head",
        "last-1",
        "last-2",
        "lora-8",
        "binned",
        "cls",
        "not-pretrained",
        "mixing-4",
        *(
            f"{sampler}{loss}-{batch}"
            for sampler in ("random", "balanced")
            for loss in ("", "-infonce", "-supcon")
            for batch in (32, 64, 128)
        ),
    } <= rows.keys()
    assert len(rows) == 48
    contents = [row.content for row in rows.values()]
    same = [name for name, row in rows.items() if contents.count(row.content) > 1]
    assert same == ["default", "random-64"], "only this row, in its place among the losses, is the default"


def test_the_sweeps_have_the_rows_they_should(root):
    sweeps = ("loss", "sampler", "adaptation", "library", "query", "mask", "seeds")
    assert [len(load_preset(name).rows) for name in sweeps] == [5, 3, 7, 7, 4, 3, 5]
    assert all(list(load_preset(name).targets) == ["compare"] for name in sweeps)


def test_the_hash_depends_on_every_value_but_not_on_where_the_data_lies(root):
    def hashed(*overrides):
        return preset_sha256(resolve(load_preset("real_cells", parse_overrides(overrides))))

    assert hashed() == hashed("data.path=/elsewhere/norman_subset.h5ad") != hashed("data.path=other.h5ad")
    assert hashed() != hashed("compare.draws=10")


def test_settings_of_the_command_line_are_in_every_row(repository):
    preset = load_preset("toy", parse_overrides(["seeds=[3, 4]", "finetune.optimizer.ema=1e-05"]))
    for row in resolve(preset).values():
        assert row.params.seeds == [3, 4]
        assert row.params.finetune.optimizer.ema == 1e-5
    with pytest.raises(InputError, match=r"toy\.yaml: rows\.own sets mask itself; leave out -S mask=none"):
        load_preset("toy", {"mask": "none"})
    for given in ("seeds", "seeds=["):
        with pytest.raises(InputError, match=f"^-S {given[:5]}"):
            parse_overrides([given])


def test_rows_are_selected_by_name_or_pattern(repository):
    preset = load_preset("toy")
    assert select(preset.rows, [], preset.file) == ["own", "all"]
    assert select(preset.rows, ["all", "o*"], preset.file) == ["own", "all"]
    with pytest.raises(InputError, match=r"experiments/toy\.yaml: no row x\*; it has own, all"):
        select(preset.rows, ["own", "x*"], preset.file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("description: [", "not YAML"),
        ("rows: {a: {}}", "description: missing"),
        ("description: d\nrow: {}", "row: unknown key"),
        ("description: d\nrows: [a]", r"rows: expected a dict, found \['a'\]"),
        ("description: d\nrows: {0: {}}", "rows: 0: a name consists of"),
        ("description: d\nrows: {'a/b': {}}", "rows: 'a/b': a name consists of"),
        ("description: d\nrows: {a: b}", "rows.a: expected settings, found 'b'"),
        ("description: d\nrows: {a: {}, a: {}}", "not YAML: .*duplicate key"),
        ("description: d\nrows: {a-b: {}, a_b: {}}", "rows: two names differ in - and _ only"),
        ("description: d\nrows: {a: {masks: own}}", "row a: masks: no such key in params.yaml"),
        ("description: d\nrows: {a: {split.sed: 1}}", "row a: split.sed: no such key"),
        ("description: d\nrows: {a: {mask.own: 1}}", "row a: mask.own: no such key"),
        ("description: d\nrows: {a: {split: 1}}", "row a: split: a section; set its keys, as split.kind"),
        ("description: d\nrows: {a: {mask: all}}", "row a: mask: .*found 'all'"),
        ("description: d\nrows: {a: {logreg.scaling: [x]}}", "row a: logreg.scaling.*found 'x'"),
        ("description: d\nrows: {a: {}}\nsettings: {seeds: [1, 1]}", "row a: seeds: .*listed twice"),
        ("description: d\nrows: {a: {}}\nbase: none", "experiments/none.yaml: no such preset; there are broken, toy"),
        ("description: d\nrows: {a: {}}\nbase: broken", "base: broken -> broken leads back to itself"),
        ("description: d\nrows: {a: {}}\ntargets: [third]", "targets: third is no stage of dvc.yaml"),
        (
            "description: d\nrows: {a: {}}\nreport: words",
            "report: words is none of screens, norman_scale, norman_full, ablation",
        ),
    ],
)
def test_a_mistake_is_named_with_file_and_key(repository, text, message):
    (repository / "experiments" / "broken.yaml").write_text(text)
    with pytest.raises(InputError, match=message) as error:
        resolve(load_preset("broken"))
    assert str(error.value).startswith("experiments/")
    assert "\n" not in str(error.value)


def test_a_base_comes_first(repository):
    (repository / "experiments" / "more.yaml").write_text(
        "description: d\nbase: toy\nsettings: {mask: none}\nrows: {a: {}, b: {mask: own}}"
    )
    rows = resolve(load_preset("more"))
    assert rows["a"].settings == {"pretrain.epochs": 0, "mask": "none"}
    assert (rows["b"].params.mask, rows["b"].params.pretrain.epochs) == ("own", 0)


def test_outside_the_root_one_line_says_so(tmp_path, monkeypatch):
    """Nothing was listed there, and `reports --fail` found no stale report."""
    monkeypatch.chdir(tmp_path)
    for command in (runner.main, reports.main):
        with pytest.raises(
            InputError, match=rf"experiments: no such folder in {tmp_path}; run from the repository root"
        ):
            command([])
