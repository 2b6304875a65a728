"""The command line that stages share."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from reverse_perturbation.config import Params, load_params
from reverse_perturbation.errors import InputError
from reverse_perturbation.stages.ending import Terminated, machine_fault, terminable

PATHS = {
    "--cells": "prepared cells, .h5ad",
    "--split": "split of the cells, .csv",
    "--genes": "genes and their tokens, .csv",
}


SCREEN = ("--cells", "--split", "--genes")
TRAINING = {
    "--checkpoint": "foundation model to start from, a folder",
    "--seed": "training seed",
    "--cache": "folder for the output of frozen layers",
    "--resume": "folder for the state of interrupted training",
    "--models": "folder of the models, for the trained weights",
    "--curves": "folder for the training curves of each model",
}


def parser(description: str | None, *inputs: str) -> argparse.ArgumentParser:
    """Build a stage's parser with ``--params`` and the named inputs of :data:`PATHS`."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument("--params", default="params.yaml", help="parameters, .yaml")
    for name in inputs:
        result.add_argument(name, required=True, help=PATHS[name])
    return result


def add_training(arguments: argparse.ArgumentParser) -> None:
    """Add the arguments of a stage that trains a foundation model."""
    for name, meaning in TRAINING.items():
        arguments.add_argument(name, required=True, type=int if name == "--seed" else str, help=meaning)


def training_settings(params: Params) -> dict[str, Any]:
    """Return the parameters that decide the course of training, for the name of its resume folder."""
    sections = {"mask", "models", "precision", "finetune", params.encoder}
    return params.model_dump(include=sections) | {"genes": params.data.genes}


def run(
    stage: Callable[[argparse.Namespace, Params], None],
    arguments: argparse.ArgumentParser,
    argv: Sequence[str] | None,
) -> None:
    """Run a stage; what ends it early is one line on standard error.

    The exit code is 2 for a user's mistake, 74 where a file cannot be read or written or memory is too small, 75 where
    another run holds what this one needs, 130 after Ctrl-C and 143 after SIGTERM.
    """
    args = arguments.parse_args(argv)
    try:
        with terminable():
            stage(args, load_params(args.params))
    except InputError as error:
        _end(f"error: {error}", error.exit_code)
    except KeyboardInterrupt:
        _end("interrupted; repeat the command to resume", 130)
    except Terminated:
        _end("terminated; repeat the command to resume", 143)
    except Exception as error:
        if (fault := machine_fault(error)) is None:
            raise
        _end(f"error: {fault}; make room or correct the path, then repeat the command", os.EX_IOERR)


def _end(message: str, code: int) -> NoReturn:
    print(message, file=sys.stderr)
    raise SystemExit(code) from None
