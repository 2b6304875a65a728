"""The gate: its exit codes, and that it names what is missed."""

import copy
import json

import pytest

from reverse_perturbation.comparison.compare import judge
from reverse_perturbation.comparison.verdict import FINDINGS, SHOWN, main, meaning, missed_targets, number
from reverse_perturbation.sections import Targets

MEANING = {
    "exact_hit@1": "scGPT exact_hit@1",
    "mrr": "scGPT mrr",
    "mrr_of_logreg": "scGPT mrr within the allowed share of logreg's",
    "ndcg@5_of_logreg": "scGPT ndcg@5 within the allowed share of logreg's",
    "mrr_of_strongest": "scGPT mrr within the allowed share of the strongest baseline's",
    "ndcg@5_of_strongest": "scGPT ndcg@5 within the allowed share of the strongest baseline's",
    "seeds": "training seeds",
}
# Found where the target is met and where it is missed, and needed: seeds are counts.
FOUND = {name: (2, 1, 2) if name == "seeds" else (0.5, 0.3, 0.4) for name in MEANING}
VALUES = dict.fromkeys((*SHOWN, "confidence_auc"), 0.5)
PASSING = {
    "scgpt": VALUES | {"std": VALUES, "seeds": {"mrr": {"mean": 0.5, "std": 0.0, "low": 0.5, "high": 0.5}}},
    "fusion": VALUES | {"std": VALUES, "mrr": 0.4321},
    "logreg": VALUES | {"mrr": 0.4567},
    "lda": VALUES | {"mrr": 0.4789},
    "pca": VALUES | {"mrr": 0.1234},
    "tests": {
        "scgpt": {
            "logreg": {"gap": -0.0321, "low": -0.0654, "high": 0.0123, "finding": "open"},
            "lda": {"gap": -0.0543, "low": -0.0768, "high": -0.0111, "finding": "behind"},
        },
        "fusion": {
            "logreg": {"gap": 0.0123, "low": 0.0032, "high": 0.0234, "finding": "ahead"},
            "lda": {"gap": 0.0009, "low": -0.0022, "high": 0.0033, "finding": "equivalent"},
        },
    },
    "strongest": {"baseline": "lda"},
    "targets": {name: {"found": met, "needed": needed, "passed": True} for name, (met, _, needed) in FOUND.items()},
    "provenance": {
        "models": ["scgpt", "fusion"],
        "baselines": ["logreg", "lda", "pca"],
        "source": "simulated",
        "data": "simulated",
        "mask": "own",
        "targets": 31,
        "measured_targets": 1,
        "labels": "legacy",
        "queries": 1234,
        "query": "cell",
        "conditions": 40,
        "split_seed": 42,
        "training_seeds": [0, 1],
    },
}


def run(tmp_path, capsys, content) -> tuple[int, str, str]:
    path = tmp_path / "comparison.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    code = main(["--comparison", str(path)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_all_targets_met(tmp_path, capsys):
    code, out, err = run(tmp_path, capsys, PASSING)
    assert code == 0
    assert err == ""
    assert out.count("passed") == len(MEANING)
    assert "MISSED" not in out


@pytest.mark.parametrize("missed", [[name] for name in MEANING] + [list(MEANING)])
def test_each_missed_target_is_named(tmp_path, capsys, missed):
    content = copy.deepcopy(PASSING)
    for name in missed:
        content["targets"][name] |= {"found": FOUND[name][1], "passed": False}
    code, out, err = run(tmp_path, capsys, content)
    assert code == 1
    assert err.startswith(f"{len(missed)} of {len(MEANING)} targets missed: ")
    assert err.strip().split(": ", 1)[1].split("; ") == [MEANING[name] for name in missed]
    lines = [line for line in out.splitlines() if line.startswith("MISSED")]
    shown = {name: "1, needed 2" if name == "seeds" else "0.300, needed 0.400" for name in missed}
    assert lines == [f"MISSED  {MEANING[name]}: {shown[name]}" for name in missed]
    assert missed_targets(content) == [MEANING[name] for name in missed]


def test_every_target_that_is_judged_has_words():
    """Those of the comparison, in its order; another foundation model is called by its own name."""
    targets = Targets(exact_hit_at_1=0.35, mrr=0.45, relative_gap=0.05)
    values = {"exact_hit@1": 0.5, "mrr": 0.5, "ndcg@5": 0.5}
    judged = judge(values, values, values, 2, targets)
    assert {name: meaning(name, "scgpt") for name in judged} == MEANING
    assert [*judged] == [*MEANING]
    assert meaning("mrr", "geneformer") == "geneformer mrr"


def test_counts_are_printed_as_integers(tmp_path, capsys):
    """Also after the round trip through the file that the stage writes."""
    _, out, _ = run(tmp_path, capsys, PASSING)
    assert "passed  training seeds: 2, needed 2" in out.splitlines()
    assert "passed  scGPT mrr: 0.500, needed 0.400" in out.splitlines()
    assert [number(value) for value in (2, 2.0, 0.35)] == ["2", "2.000", "0.350"]


def test_targets_that_cannot_be_masked_stand_beside_the_verdict(tmp_path, capsys):
    _, out, _ = run(tmp_path, capsys, PASSING)
    assert out.splitlines()[0].endswith("; 1 of 31 targets are measured and can be masked")


def test_real_cells_are_called_by_the_name_of_their_file(tmp_path, capsys):
    content = copy.deepcopy(PASSING)
    content["provenance"] |= {"source": "h5ad", "data": "norman_subset"}
    _, out, _ = run(tmp_path, capsys, content)
    assert out.startswith("norman_subset data, mask own")


def test_every_model_is_shown_and_every_headline_test_with_its_finding(tmp_path, capsys):
    _, out, _ = run(tmp_path, capsys, PASSING)
    lines = [line for line in out.splitlines() if "lower is better" not in line]
    assert lines[0].startswith("simulated data, mask own, legacy labels, 1,234 cell queries, 40 conditions")
    assert [line.split()[0] for line in lines[2:7]] == ["scgpt", "fusion", "logreg", "lda", "pca"]
    mrr = [line.split()[1 + SHOWN.index("mrr")] for line in lines[2:7]]
    assert mrr == ["0.500", "0.432", "0.457", "0.479", "0.123"]
    assert lines[7] == "strongest baseline, by cross-validation in the known cells: lda"
    assert [line.split(" mrr ")[0].strip() for line in lines[8:12]] == [
        "scgpt - logreg",
        "scgpt - lda",
        "fusion - logreg",
        "fusion - lda",
    ]
    assert [line.split(" mrr ")[1] for line in lines[8:12]] == [
        f"-0.032, 95 % interval -0.065 to +0.012: {FINDINGS['open']}",
        f"-0.054, 95 % interval -0.077 to -0.011: {FINDINGS['behind']}",
        f"+0.012, 95 % interval +0.003 to +0.023: {FINDINGS['ahead']}",
        f"+0.001, 95 % interval -0.002 to +0.003: {FINDINGS['equivalent']}",
    ]
    assert lines[12].startswith("passed")


def test_a_finding_is_no_target(tmp_path, capsys):
    """A model may be behind and still within the allowed share; the exit code is that of the targets."""
    content = copy.deepcopy(PASSING)
    for of_model in content["tests"].values():
        for test in of_model.values():
            test["finding"] = "behind"
    code, out, _ = run(tmp_path, capsys, content)
    assert code == 0
    assert out.count(FINDINGS["behind"]) == 4


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"targets": {}}', ""])
def test_what_is_no_comparison_is_not_taken_for_a_missed_target(tmp_path, capsys, content):
    code, out, err = run(tmp_path, capsys, content)
    assert code == 2
    assert out == ""
    assert "comparison.json: not a comparison" in err


def test_without_a_comparison(tmp_path, capsys):
    assert main(["--comparison", str(tmp_path / "none.json")]) == 2
    assert "none.json: no such file; run `dvc repro`" in capsys.readouterr().err
