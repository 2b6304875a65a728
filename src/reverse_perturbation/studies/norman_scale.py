"""The specification's own protocol on a simulated screen of Norman's size: one experiment, and its report."""

import argparse
import json
import os
import platform
import resource
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from reverse_perturbation.comparison.verdict import MEANING
from reverse_perturbation.report.report import WHAT_THE_BASELINES_ARE
from reverse_perturbation.report.tables import SIMULATED, gaps_table, markdown, models_table, slice_of, targets_table
from reverse_perturbation.storage import write_text
from reverse_perturbation.studies.runner import run_experiment, uncommitted

NAME = "norman-scale"
TRAINING_SEEDS = (0, 1)
SPLIT_SEED = 42
BASELINES = ("logreg", "logreg_default", "logreg_depth", "pca")
# The protocol of the specification and the size of the screen.
PROTOCOL = {
    "data.simulated.conditions": "282",
    "data.simulated.cells": "91205",
    "data.simulated.genes": "5045",
    "mask": "own",
    "labels": "legacy",
    "split.seed": str(SPLIT_SEED),
    "seeds": "[0,1]",
    "models": "[scgpt]",
}
# What two cores have time for; an epoch here has as many steps as the whole of the default run. Without the refit scGPT
# learns from a tenth fewer cells than logistic regression; with more cells for each weight the head needs less dropout.
TIME = {
    "logreg.scaling": "[none]",
    "logreg.c": "[0.001,0.003,0.01,0.03]",
    "pretrain.epochs": "1",
    "finetune.epochs": "3",
    "finetune.refit": "false",
    "finetune.head_dropout": "0.5",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the experiment and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any key of params.yaml")
    parser.add_argument("--report", default="results/reports/norman_scale.md")
    args = parser.parse_args(argv)
    if dirty := uncommitted():
        sys.exit(f"error: commit these changes first, so that the report belongs to a commit:\n{dirty}")
    settings = PROTOCOL | TIME | dict(setting.split("=", 1) for setting in args.set)
    files, seconds = run_experiment(NAME, settings, "compare")
    runs = [f"scgpt-{seed}" for seed in TRAINING_SEEDS] + [f"{name}-{SPLIT_SEED}" for name in BASELINES]
    found = {name: json.loads(files.read_text(f"metrics/{name}.json")) for name in [*runs, "comparison"]}
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    write_text(args.report, report(found.pop("comparison"), found, settings, seconds, peak))
    print(f"norman_scale: {args.report}")


def report(
    comparison: Mapping[str, Any],
    runs: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, str],
    seconds: Mapping[str, float],
    peak: float,
) -> str:
    """Write the report as Markdown.

    Parameters
    ----------
    comparison, runs
        ``metrics/comparison.json`` and the metrics file of each model and seed, by name.
    settings
        What the experiment was given.
    seconds
        Of each stage that ran.
    peak
        GiB of the largest process.
    """
    given = " ".join(f"-S '{key}={value}'" for key, value in settings.items())
    missed = [MEANING[name] for name, target in comparison["targets"].items() if not target["passed"]]
    parts = [
        "# The specification's protocol at Norman scale",
        SIMULATED,
        f"{slice_of(comparison['provenance'])}; {settings['data.simulated.cells']} cells x "
        f"{settings['data.simulated.genes']} genes, {settings['data.simulated.conditions']} labels. Made by "
        f"`make norman_scale`, that is `dvc exp run {given} compare`.",
        "## Targets",
        "**Every target is met.**" if not missed else f"**Missed: {'; '.join(missed)}.**",
        markdown(targets_table(comparison["targets"], MEANING)),
        "## The gap to the tuned logistic regression",
        "Mean over the training seeds; the interval is a paired bootstrap over queries, stratified by condition.",
        markdown(gaps_table(comparison)),
        "## Every model and seed",
        WHAT_THE_BASELINES_ARE,
        markdown(models_table(runs)),
        "## What it took",
        f"{platform.machine()}, {os.cpu_count()} cores, no GPU; the largest process had {peak:.1f} GiB. "
        + (
            "" if len(seconds) > len(runs) else "Stages that are not here, nor in this memory, came from the run-cache."
        ),
        markdown([{"stage": stage, "minutes": taken / 60} for stage, taken in seconds.items()], decimals=1),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


if __name__ == "__main__":
    main()
