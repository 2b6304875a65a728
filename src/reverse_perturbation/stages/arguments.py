"""What the command lines of the stages have in common."""

import argparse
import sys
from collections.abc import Callable, Sequence

from reverse_perturbation.config import Params, load_params
from reverse_perturbation.errors import InputError

PATHS = {
    "--cells": "prepared cells, .h5ad",
    "--split": "split of the cells, .csv",
    "--genes": "genes and their scGPT tokens, .csv",
}


def parser(description: str | None, *inputs: str) -> argparse.ArgumentParser:
    """Build a stage's parser with ``--params`` and the named inputs of :data:`PATHS`."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument("--params", default="params.yaml", help="parameters, .yaml")
    for name in inputs:
        result.add_argument(name, required=True, help=PATHS[name])
    return result


def run(
    stage: Callable[[argparse.Namespace, Params], None],
    arguments: argparse.ArgumentParser,
    argv: Sequence[str] | None,
) -> None:
    """Run a stage; a user's mistake ends it with one line on standard error and exit code 2."""
    args = arguments.parse_args(argv)
    try:
        stage(args, load_params(args.params))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
