"""Set scGPT against the baselines and judge it by the specification's targets."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from reverse_perturbation.check import lines
from reverse_perturbation.config import Params
from reverse_perturbation.retrieval.compare import Run
from reverse_perturbation.retrieval.compare import compare as compare_runs
from reverse_perturbation.retrieval.evaluate import Scores
from reverse_perturbation.stages.arguments import parser, run
from reverse_perturbation.storage import read_json, write_json


def compare(args: argparse.Namespace, params: Params) -> None:
    """Write the comparison."""
    scgpt = [_load(args, f"scgpt-{seed}") for seed in params.seeds]
    baselines = {name: _load(args, f"{name}-{params.split.seed}") for name in args.baselines}
    comparison = compare_runs(scgpt, baselines, params.compare, params.targets)
    write_json(args.output, comparison)
    print("\n".join(lines(comparison)))


def _load(args: argparse.Namespace, name: str) -> Run:
    return Run(name, read_json(Path(args.metrics) / f"{name}.json"), Scores.load(Path(args.scores) / f"{name}.npz"))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = parser(__doc__)
    arguments.add_argument("--metrics", required=True, help="folder of the metrics files")
    arguments.add_argument("--scores", required=True, help="folder of the score files")
    arguments.add_argument("--baselines", required=True, nargs="+", help="names of the baselines")
    arguments.add_argument("--output", required=True, help="where to write the comparison, .json")
    run(compare, arguments, argv)


if __name__ == "__main__":
    main()
