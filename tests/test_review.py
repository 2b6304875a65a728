"""What a reviewer runs: scripts/review.sh, which a workflow posts on a pull request."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

from reverse_perturbation.comparison import verdict

ROOT = Path(__file__).parents[1]


def test_the_review_shows_what_changed_and_exits_as_the_verdict():
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    review = subprocess.run(
        ["scripts/review.sh", "HEAD"], cwd=ROOT, env=os.environ | {"PATH": path}, capture_output=True, text=True
    )
    assert review.returncode == verdict.main(["--comparison", str(ROOT / "metrics" / "comparison.json")]), review.stderr
    headings = [line for line in review.stdout.split("\n") if line.startswith("## ")]
    assert headings == [
        "## Metrics against HEAD",
        "## Parameters against HEAD",
        "## Plots that changed against HEAD",
        "## Reports",
        "## Verdict",
    ]
    assert "results/reports/norman_subset.md: " in review.stdout
    assert "scGPT mrr within the allowed share of logreg's" in review.stdout


def test_a_picture_that_changed_is_shown(tmp_path):
    def call(*command: str) -> str:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "PICTURES": "https://example.org/raw/abc"}
        return subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False).stdout

    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    shutil.copy(ROOT / "scripts" / "review.sh", clone / "scripts")
    shutil.copy(ROOT / ".dvc" / "plots.html", clone / ".dvc")  # `make setup` writes it
    (clone / "plots" / "models" / "hit_at_k.png").write_bytes(b"another picture")
    (clone / "plots" / "models" / "coverage.png").unlink()
    plots = call("scripts/review.sh", "HEAD").split("## Plots")[1].split("## Reports")[0]
    assert "![plots/models/hit_at_k.png](https://example.org/raw/abc/plots/models/hit_at_k.png)" in plots
    assert plots.count("![") == 1, "neither unchanged nor deleted ones"
    assert call("dvc", "plots", "diff", "HEAD").startswith("file://")


def test_an_unknown_base_is_an_error():
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    review = subprocess.run(
        ["scripts/review.sh", "no-such-revision"], cwd=ROOT, env=os.environ | {"PATH": path}, capture_output=True
    )
    assert review.returncode != 0
    assert b"no-such-revision" in review.stderr


def test_the_workflows_run_what_is_tested_here():
    def steps(name: str) -> str:
        workflow = YAML(typ="safe").load(ROOT / ".github" / "workflows" / f"{name}.yml")
        return "\n".join(step.get("run", "") for job in workflow["jobs"].values() for step in job["steps"])

    assert "scripts/review.sh" in steps("review")
    assert "dvc plots diff" in steps("review")
    assert ".ci/run" in steps("ci")
    assert "make test" in (ROOT / ".ci" / "run").read_text()
