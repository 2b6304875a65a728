"""The experiment as its users run it: through DVC, in a fresh copy of the repository."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.end_to_end.pipeline import ROOT, params, yaml

BIN = Path(sys.executable).parent


def environment() -> dict[str, str]:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    identity = {
        f"GIT_{who}_{what}": "test@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    return os.environ | {"PATH": path} | identity


def call(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """The files git tracks, in a repository of their own, with small parameters, after ``dvc repro``."""
    folder = tmp_path_factory.mktemp("repository") / "copy"
    for name in call(ROOT, "git", "ls-files").splitlines():
        if (ROOT / name).is_file() and not name.endswith("dvc.lock"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    content = params(data={"path": "data/norman_conditions.csv"})
    with (folder / "params.yaml").open("w") as file:
        yaml.dump(content, file)
    call(folder, "git", "init", "-q")
    call(folder, "git", "add", "-A")
    call(folder, "git", "commit", "-qm", "start")
    call(folder, "dvc", "repro")
    return folder


def stale(repository: Path) -> set[str]:
    """Names of the stages that have changed, without what follows from them."""
    return {name.split("@")[0] for name in json.loads(call(repository, "dvc", "status", "--json"))}


@pytest.mark.slow
def test_after_a_run_there_is_nothing_to_do(repository):
    assert stale(repository) == set()
    assert "up to date" in call(repository, "dvc", "repro")


@pytest.mark.slow
def test_small_results_are_in_git_and_large_ones_in_dvc(repository):
    call(repository, "git", "add", "-A")
    tracked = call(repository, "git", "ls-files").splitlines()
    small = ("metrics/comparison.json", "metrics/models/scgpt-0.json", "metrics/baselines/lda.json", "dvc.lock")
    for name in (*small, "results/reports/report.md"):
        assert name in tracked
    predictions = ("baselines/pca", "trained/scgpt-0", "combined/stack")
    large = (*(f"data/predictions/{name}/final.npz" for name in predictions), "data/scores/models/stack.npz")
    for name in (*large, "data/prepared/cells.h5ad", "models/scgpt-0/final.safetensors"):
        assert (repository / name).exists()
        assert name not in tracked


# What has a row for every model.
EVALUATED = {"evaluate", "evaluate_baselines", "library_query", "compare", "analysis", "report"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("library.kind", "mean", {"evaluate", "evaluate_baselines", "analysis"}),
        ("query.kind", "pseudobulk", {"evaluate", "evaluate_baselines", "analysis"}),
        ("targets.mrr", 0.5, {"compare"}),
        ("finetune.schedule.epochs", 3, {"finetune"}),
        ("launcher", "python -W ignore -m", {"finetune", "embed"}),
        ("scgpt.value_input", "binned", {"pretrain", "finetune", "embed"}),
        ("models", ["scgpt"], {"vocab_map", "combine", *EVALUATED}),
        ("pca.components", 9, {"baseline"}),
        ("mlp.width", 9, {"baseline"}),
        ("split.query_fraction", 0.3, {"split"}),
        ("data.simulated.seed", 5, {"prepare", "analysis"}),
    ],
)
def test_a_parameter_makes_stale_what_reads_it_and_no_more(repository, key, value, expected):
    file = repository / "params.yaml"
    before = file.read_text()
    content = yaml.load(before)
    section = content
    *path, last = key.split(".")
    for name in path:
        section = section[name]
    assert section[last] != value
    section[last] = value
    try:
        with file.open("w") as stream:
            yaml.dump(content, stream)
        assert stale(repository) == expected
    finally:
        file.write_text(before)


@pytest.mark.slow
def test_a_stage_whose_dvc_is_killed_ends_and_the_next_one_resumes_it(repository, tmp_path):
    """Two would train beside each other, and write each epoch of the curves twice."""
    folder = tmp_path / "copy"
    shutil.copytree(repository, folder)
    with (folder / "params.yaml").open("w") as file:
        schedule = {"epochs": 80, "patience": 80}
        yaml.dump(params(data={"path": "data/norman_conditions.csv"}, finetune={"schedule": schedule}), file)
    command = ["dvc", "repro", "--single-item", "finetune@0"]
    with (
        (folder / "said").open("w") as said,
        subprocess.Popen(
            [BIN / command[0], *command[1:]], cwd=folder, stdout=said, stderr=said, env=environment()
        ) as first,
    ):
        until = time.monotonic() + 60
        while "epoch 3/80" not in (folder / "said").read_text():
            assert time.monotonic() < until, (folder / "said").read_text()
            time.sleep(0.1)
        first.kill()
    assert "resumed after epoch" in call(folder, *command)
    assert "terminated; repeat the command to resume" in (folder / "said").read_text()
    steps = (folder / "plots/training/scgpt-0/plots/metrics/mrr.tsv").read_text().splitlines()[1:]
    assert [int(line.split("\t")[0]) for line in steps] == list(range(1, 81))
    assert not list((folder / "data/resume").iterdir())


@pytest.mark.slow
def test_a_library_sweep_trains_nothing(repository):
    call(repository, "git", "commit", "-qam", "results")
    said = call(
        repository, "dvc", "exp", "run", "-S", "library.kind=raw_cell", "-S", "evaluate.ranking=library", "-n", "raw"
    )
    assert "Running stage 'evaluate'" in said
    assert "Running stage 'evaluate_baselines'" in said
    for stage in ("finetune@0", "embed@0", "combine"):
        assert f"Running stage '{stage}'" not in said
    table = call(repository, "dvc", "exp", "show", "--csv", "--no-pager")
    assert any(line.startswith("raw,") or ",raw," in line for line in table.splitlines())
    moved = json.loads(call(repository, "dvc", "metrics", "diff", "HEAD", "raw", "--json"))
    assert moved["metrics/comparison.json"]["scgpt.mrr"]["diff"] != 0
    assert moved["metrics/models/scgpt-0.json"]["mrr"]["diff"] != 0, "DVC reads the folder of metrics"


@pytest.mark.slow
def test_a_library_sweep_reuses_the_trained_models(repository):
    """The preset of docs/experiments.md, through DVC's queue with two workers."""
    call(repository, "git", "add", "-A")
    call(repository, "git", "commit", "-qm", "results", "--allow-empty")
    experiments = [sys.executable, "-m", "reverse_perturbation", "experiments", "library"]
    call(repository, *experiments, "-j", "2")
    names = call(repository, "dvc", "exp", "list", "--name-only").split()
    assert {"library-mean", "library-raw-cell"} <= set(names)
    moved = json.loads(call(repository, "dvc", "metrics", "diff", "library-mean", "library-raw-cell", "--json"))
    assert any("scgpt" in name for name in moved), "another library, another ranking"
    logs = call(repository, "dvc", "queue", "logs", "library-mean")
    assert "Running stage 'evaluate'" in logs
    assert "Running stage 'finetune@0'" not in logs
    assert "Running stage" not in call(repository, *experiments), "every row is made"


@pytest.mark.slow
def test_an_experiment_is_restored_where_the_results_of_the_branch_were_never_made(repository, tmp_path):
    """A clone knows them by dvc.lock alone; DVC looked them up when a stage depended on one file of a folder."""
    call(repository, "git", "add", "-A")
    call(repository, "git", "commit", "-qm", "results", "--allow-empty")
    clone = tmp_path / "clone"
    call(repository, "git", "clone", "-q", str(repository), str(clone))
    settings = ["-S", "split.seed=43", "-S", "seeds=[0]", "-S", "models=[scgpt]"]
    command = ["dvc", "exp", "run", "--temp", "-n", "other", *settings, "compare"]
    assert "Running stage 'finetune@0'" in call(clone, *command)
    call(clone, "dvc", "exp", "remove", "other")
    assert "Running stage" not in call(clone, *command)


@pytest.mark.slow
def test_what_was_pushed_to_a_folder_is_pulled_from_it(repository, tmp_path):
    call(repository, "git", "add", "-A")
    call(repository, "git", "commit", "-qm", "results", "--allow-empty")
    call(repository, "dvc", "remote", "add", "--local", "-d", "storage", str(tmp_path / "storage"))
    call(repository, "dvc", "push")
    call(repository, "git", "clone", "-q", str(repository), str(tmp_path / "clone"))
    clone = tmp_path / "clone"
    assert not (clone / "models" / "logreg").exists()
    call(clone, "dvc", "remote", "add", "--local", "-d", "storage", str(tmp_path / "storage"))
    call(clone, "dvc", "pull")
    for name in ("models/logreg/final/weights.safetensors", "models/scgpt-0/final.safetensors"):
        assert (clone / name).read_bytes() == (repository / name).read_bytes()
    assert "up to date" in call(clone, "dvc", "status")
    call(clone, "dvc", "get", str(repository), "models/logreg", "-o", "taken")
    assert (clone / "taken" / "choices.csv").exists()
