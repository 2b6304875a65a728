"""Set scGPT, alone and in fusion, against the baselines and judge it by the specification's targets."""

import argparse
from collections.abc import Sequence

from reverse_perturbation.check import lines
from reverse_perturbation.config import Params
from reverse_perturbation.retrieval.compare import Run
from reverse_perturbation.retrieval.compare import compare as compare_runs
from reverse_perturbation.stages.arguments import parser, run
from reverse_perturbation.storage import write_json


def compare(args: argparse.Namespace, params: Params) -> None:
    """Write the comparison."""
    trained: dict[str, list[Run]] = {
        name: [Run.load(f"{name}-{seed}", args.metrics, args.scores) for seed in params.seeds] for name in params.models
    }
    baselines = {name: Run.load(f"{name}-{params.split.seed}", args.metrics, args.scores) for name in args.baselines}
    comparison = compare_runs(trained, baselines, params.compare, params.targets)
    write_json(args.output, comparison)
    print("\n".join(lines(comparison)))


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
