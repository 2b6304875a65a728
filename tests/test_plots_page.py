"""`dvc plots show`: models and seeds over each other, on a page that needs no network."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from reverse_perturbation.report.plots import page_csv
from tests.end_to_end.pipeline import ROOT

DVC = Path(sys.executable).parent / "dvc"
HOSTILE = "=A</script><img src=x onerror=alert(1)><script>"  # a label
PLOTS = {"hit_at_k", "coverage", "loss", "confusion"}


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """The page of made-up results: two models, two epochs, two conditions."""
    folder = tmp_path_factory.mktemp("plots")
    (folder / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "make_plots_page.py", folder / "scripts")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    shutil.copytree(ROOT / ".dvc", folder / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp", "*.html"))
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder)
    rows = folder / "plots" / "models"
    rows.mkdir(parents=True)
    models = ["scgpt-0", "scgpt-0", "logreg", "logreg"]
    table = pd.DataFrame({"model": models})
    table.assign(k=[1, 2, 1, 2], exact_hit=[0.2, 0.4, 0.3, 0.5]).to_csv(rows / "hit_at_k.csv", index=False)
    table.assign(coverage=[0.5, 1, 0.5, 1], accuracy=[0.9, 0.5, 0.8, 0.6]).to_csv(rows / "coverage.csv", index=False)
    losses = table.assign(step=[1, 1, 1, 1], part=["train", "validation"] * 2, loss=[3.0, 2, 1, 0.5])
    losses.to_csv(rows / "training.csv", index=False)
    confusion = pd.DataFrame({"actual": ["A", "A", HOSTILE, "B"], "predicted": ["A", HOSTILE, "B", "B"]})
    (rows / "confusion.csv").write_text(page_csv(confusion))
    subprocess.run([sys.executable, "scripts/make_plots_page.py"], cwd=folder, check=True)
    subprocess.run([DVC, "plots", "show", "-o", "shown"], cwd=folder, check=True, capture_output=True)
    return folder / "shown" / "index.html"


def test_all_plots_are_on_the_page_and_no_script_is_elsewhere(page):
    text = page.read_text()
    assert not re.findall(r"<(?:script|link)[^>]+(?:src|href)=", text)
    specifications = [json.loads(found) for found in re.findall(r"var spec = (\{.*?\});\s*vegaEmbed", text, flags=re.S)]
    assert len(specifications) == len(PLOTS)
    assert sum("scgpt-0" in json.dumps(one["data"]) and "model" in json.dumps(one) for one in specifications) == 3


def test_a_label_ends_no_script_of_the_page(page):
    text = page.read_text()
    assert "<img src=x" not in text
    assert "'=A&lt;/script&gt;&lt;img" in text


def test_a_browser_without_a_network_draws_every_plot(page):
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    shown = subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND",
         f"--user-data-dir={page.parent / 'profile'}", "--virtual-time-budget=10000", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120, env=os.environ,
    ).stdout  # fmt: skip
    assert len(re.findall(r"<(?:canvas|svg)[^>]+class=\"marks\"", shown)) == len(PLOTS)
