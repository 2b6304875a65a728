"""The command ``reverse-perturbation``."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from reverse_perturbation.errors import InputError

# Subcommand -> module with ``main(argv)``, and what it does. Modules are imported when they are needed.
COMMANDS = {
    "fetch": ("reverse_perturbation.prepare.fetch", "download real cells or the official checkpoint"),
    "check": ("reverse_perturbation.comparison.verdict", "print the comparison; exit with 1 if a target is missed"),
    "experiments": ("reverse_perturbation.studies.runner", "run the rows of a preset, or list the presets"),
    "reports": ("reverse_perturbation.studies.reports", "list the reports of presets and whether they are current"),
    "stages": ("reverse_perturbation.cli", "list the stages of the pipeline, or run one"),
}
STAGES = "reverse_perturbation.stages"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; a user's mistake is one line on standard error and exit code 2."""
    width = max(map(len, COMMANDS))
    parser = argparse.ArgumentParser(
        prog="reverse-perturbation",
        description="Can a foundation model name the perturbation of a cell? Each command has its own --help.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(["commands:", *(f"  {name:{width}}  {what}" for name, (_, what) in COMMANDS.items())]),
    )
    parser.add_argument("command", choices=COMMANDS, metavar="command")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    run = stages if args.command == "stages" else import_module(COMMANDS[args.command][0]).main
    sys.argv = [f"{parser.prog} {args.command}", *args.arguments]  # how its --help calls it
    try:
        return run(args.arguments) or 0
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; repeat the command to resume", file=sys.stderr)
        return 130


def stages(argv: Sequence[str]) -> int:
    """List the stages of dvc.yaml, or run one: the same as ``python -m reverse_perturbation.stages.NAME``."""
    if not argv or argv[0].startswith("-"):
        argparse.ArgumentParser(description=stages.__doc__).parse_args(argv)
        _list_stages()
        return 0
    name, *arguments = argv
    known = name.isidentifier() and find_spec(f"{STAGES}.{name}") is not None
    run = getattr(import_module(f"{STAGES}.{name}"), "main", None) if known else None
    if run is None:
        raise InputError(f"no stage {name}; `reverse-perturbation stages` lists them")
    sys.argv = [f"{sys.argv[0]} {name}", *arguments]
    run(arguments)
    return 0


def _list_stages() -> None:
    from ruamel.yaml import YAML

    try:
        content = YAML(typ="safe").load(Path("dvc.yaml"))
    except FileNotFoundError:
        raise InputError("dvc.yaml: no such file; run from the repository root") from None
    described = {name: stage["desc"] for name, stage in content["stages"].items()}
    width = max(map(len, described))
    for name, what in described.items():
        print(f"{name:{width}}  {what}")
