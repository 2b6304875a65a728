"""Compare the foundation model, alone and in fusion, with the baselines and with the specification's targets."""

import argparse
from collections.abc import Sequence

from reverse_perturbation.comparison.compare import Result
from reverse_perturbation.comparison.compare import compare as compare_results
from reverse_perturbation.comparison.verdict import lines
from reverse_perturbation.config import Params
from reverse_perturbation.runs import simple_runs, trained_runs
from reverse_perturbation.stages.arguments import parser, run
from reverse_perturbation.storage import write_json


def compare(args: argparse.Namespace, params: Params) -> None:
    """Write the comparison."""
    trained = {
        model: [Result.load(each, args.metrics, args.scores) for each in runs]
        for model, runs in trained_runs(params).items()
    }
    baselines = {name: Result.load(each, args.metrics, args.scores) for name, (each,) in simple_runs(params).items()}
    comparison = compare_results(trained, baselines, params.compare, params.targets)
    write_json(args.output, comparison)
    print("\n".join(lines(comparison)))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = parser(__doc__)
    arguments.add_argument("--metrics", required=True, help="folder of the metrics files")
    arguments.add_argument("--scores", required=True, help="folder of the score files")
    arguments.add_argument("--output", required=True, help="where to write the comparison, .json")
    run(compare, arguments, argv)


if __name__ == "__main__":
    main()
