"""The result on real cells: run the whole experiment under each mask and write one report of all of it.

Each run is a DVC experiment in a folder of its own (``dvc exp run --temp``), so the working tree and its results on
simulated cells stay as they are, and a run whose result is in DVC's cache is not computed again.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import dvc.api

from reverse_perturbation.check import MEANING
from reverse_perturbation.config import Mask, load_params
from reverse_perturbation.report.report import WHAT_FUSION_IS
from reverse_perturbation.report.tables import gaps_table, markdown, models_table, slice_of, targets_table
from reverse_perturbation.retrieval.compare import TRAINED
from reverse_perturbation.storage import sha256, write_json, write_text

BASELINES = ("logreg", "logreg_prior", "pca")
HEADLINE: Mask = "all_targets"
MASKS: tuple[Mask, ...] = get_args(Mask)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the experiments and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="real cells, .h5ad (layout: src/.../data/contract.py)")
    parser.add_argument("--report", default="results/reports/norman_subset", help="path without .md and .json")
    args = parser.parse_args(argv)
    data = Path(args.data).resolve()
    if not data.is_file():
        sys.exit(f"error: {args.data}: no such file; give the path of an .h5ad file with --data")
    if dirty := _uncommitted():
        sys.exit(f"error: commit these changes first, so that the report belongs to a commit:\n{dirty}")
    params = load_params()
    files = [f"{model}-{seed}" for model in TRAINED for seed in params.seeds]
    files += [f"{model}-{params.split.seed}" for model in BASELINES]
    runs, comparisons = {}, {}
    for mask in MASKS:
        name = _experiment(data, mask)
        comparisons[mask] = _read(name, "comparison")
        runs[mask] = {file: _read(name, file) for file in files}
    write_json(
        f"{args.report}.json",
        comparisons[HEADLINE] | {"other_masks": {m: c for m, c in comparisons.items() if m != HEADLINE}},
    )
    write_text(f"{args.report}.md", _report(data, comparisons, runs))
    print(f"real cells: {args.report}.md and .json")


def _uncommitted() -> str:
    command = ["git", "status", "--porcelain", "--untracked-files=no"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _experiment(data: Path, mask: Mask) -> str:
    """Run one experiment and return its name."""
    name = f"{data.stem}-{mask}".replace("_", "-")
    # An experiment of this name from an earlier commit gives way; its stages still come from the run-cache.
    subprocess.run(["dvc", "exp", "remove", "-q", name], check=False, capture_output=True)
    command = ["dvc", "exp", "run", "--temp", "-n", name]
    for setting in (f"data.path={data}", "data.source=h5ad", f"mask={mask}"):
        command += ["-S", setting]
    print(f"real cells: mask {mask}", flush=True)
    subprocess.run(command, check=True)
    return name


def _read(experiment: str, file: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(dvc.api.read(f"metrics/{file}.json", rev=experiment))
    return content


def _report(
    data: Path,
    comparisons: Mapping[Mask, Mapping[str, Any]],
    runs: Mapping[Mask, Mapping[str, Mapping[str, Any]]],
) -> str:
    about = comparisons[HEADLINE]["provenance"]
    missed = [name for name, target in comparisons[HEADLINE]["targets"].items() if not target["passed"]]
    parts = [
        "# scGPT against logistic regression on real cells",
        f"Real cells of Norman et al. 2019: `{data.name}`, sha256 `{sha256(data)[:16]}`. {slice_of(about)}, "
        f"training seeds {', '.join(map(str, about['training_seeds']))}. Made by `make norman_subset`.",
        "No pretrained weights were used: scGPT is a small model of its architecture, pretrained on the reference and "
        "control cells of this file alone. What it reaches says nothing about the official checkpoint.",
        f"**Verdict under the headline mask, {HEADLINE}: "
        + ("every target is met.**" if not missed else f"{len(missed)} of {len(MEANING)} targets are missed.**"),
        markdown(targets_table(comparisons[HEADLINE]["targets"], MEANING)),
        "## The gap to the tuned logistic regression",
        f"{WHAT_FUSION_IS} Both are means over their training seeds; the interval is a paired bootstrap over queries, "
        "stratified by condition.",
        markdown([{"mask": mask} | row for mask in MASKS for row in gaps_table(comparisons[mask])]),
    ]
    for mask in MASKS:
        parts += [f"## Mask {mask}: every model and seed", markdown(models_table(runs[mask]))]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
