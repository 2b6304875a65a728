"""Choose a baseline's settings by cross-validation, fit it twice and predict every cell."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from reverse_perturbation.config import Params
from reverse_perturbation.data.folds import folds
from reverse_perturbation.data.screen.masked_screen import (
    MaskedScreen,
    fingerprint,
    load_masked_screen,
    separate_controls,
)
from reverse_perturbation.errors import InputError
from reverse_perturbation.models.ranker import Folds, Ranker, cross_validate, load_baseline
from reverse_perturbation.sections import FITS, Tuning
from reverse_perturbation.stages.arguments import SCREEN, parser, run
from reverse_perturbation.storage import write_json, write_text

Result = TypeVar("Result")


def baseline(args: argparse.Namespace, params: Params) -> None:
    """Write what was chosen, and weights and predictions of both fits."""
    ranker = load_baseline(args.name, params)
    screen, controls = separate_controls(
        load_masked_screen(args.cells, args.split, args.genes, mask=params.mask, genes=params.data.genes, controls=True)
    )
    rows = {"selection": screen.rows("reference"), "final": screen.rows("reference", "validation")}
    parts = _folds(screen, rows["final"], params.tuning)
    ranker.select(screen, parts)
    model, predicted, tried = Path(args.models) / args.name, Path(args.predictions) / args.name, 1
    if ranker.choices is not None:
        tried = len(ranker.choices)
        table = ranker.choices.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        write_text(model / "choices.csv", table)
    held_out = _in_line(ranker, lambda: cross_validate(ranker, screen, parts))
    about = {"folds": len(parts), "configurations": tried, "held_out": held_out}
    write_json(predicted / "facts.json", {"cross_validation": about})
    for fit in FITS:
        ranker.fit(screen, rows[fit])
        ranker.save(model / fit, screen)
        predictions = replace(_in_line(ranker, lambda: ranker.predict(screen)), screen_sha256=fingerprint(screen))
        if predictions.embedding is not None and len(controls.cell_ids):
            of_controls = ranker.predict(controls).embedding
            assert of_controls is not None
            predictions = replace(predictions, control_mean=of_controls.mean(axis=0))
        predictions.save(predicted / f"{fit}.npz")
        print(f"{ranker.name}: {fit} fit on {len(rows[fit]):,} cells")


def _folds(screen: MaskedScreen, known: np.ndarray, config: Tuning) -> Folds:
    """Return the rows to fit on and those held out for choices."""
    if config.folds == 1:
        return [(screen.rows("reference"), screen.rows("validation"))]
    return [(known[train], known[held]) for train, held in folds(screen.conditions[known], config.folds, config.seed)]


def _in_line(ranker: Ranker, use: Callable[[], Result]) -> Result:
    """Use a ranker; what it predicts must be predictions, else an error names its file."""
    try:
        return use()
    except ValueError as error:
        raise InputError(f"models/baselines/{ranker.name}.py: {error}") from error


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = parser(__doc__, *SCREEN)
    arguments.add_argument("--name", required=True, help="a file of models/baselines")
    arguments.add_argument("--models", required=True, help="folder of the models, for the fitted weights")
    arguments.add_argument("--predictions", required=True, help="folder for what baselines predict")
    run(baseline, arguments, argv)


if __name__ == "__main__":
    main()
