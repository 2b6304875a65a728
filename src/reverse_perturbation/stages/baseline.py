"""Fit a baseline twice and predict every cell."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from reverse_perturbation.config import Params
from reverse_perturbation.data.screen.masked_screen import (
    MaskedScreen,
    fingerprint,
    load_masked_screen,
    separate_controls,
)
from reverse_perturbation.errors import InputError
from reverse_perturbation.models.ranker import Ranker, load_baseline
from reverse_perturbation.retrieval.predictions import Predictions
from reverse_perturbation.sections import FITS
from reverse_perturbation.stages.arguments import SCREEN, parser, run
from reverse_perturbation.storage import write_text


def baseline(args: argparse.Namespace, params: Params) -> None:
    """Write weights and predictions of both fits."""
    ranker = load_baseline(args.name, params)
    screen, controls = separate_controls(
        load_masked_screen(args.cells, args.split, args.genes, mask=params.mask, genes=params.data.genes, controls=True)
    )
    reference, validation = screen.rows("reference"), screen.rows("validation")
    everything = np.concatenate([reference, validation])
    for fit in FITS:
        if fit == "selection":
            ranker.select(screen, reference, validation)
        else:
            ranker.fit(screen, everything)
        ranker.save(Path(args.model) / fit, screen)
        predictions = replace(_predict(ranker, screen), screen_sha256=fingerprint(screen))
        if predictions.embedding is not None and len(controls.cell_ids):
            of_controls = _predict(ranker, controls).embedding
            assert of_controls is not None
            predictions = replace(predictions, control_mean=of_controls.mean(axis=0))
        predictions.save(Path(args.predictions) / f"{fit}.npz")
        print(f"{ranker.name}: {fit} fit on {len(reference if fit == 'selection' else everything):,} cells")
    if ranker.choices is not None:
        table = ranker.choices.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        write_text(Path(args.model) / "choices.csv", table)


def _predict(ranker: Ranker, screen: MaskedScreen) -> Predictions:
    try:
        return ranker.predict(screen)
    except ValueError as error:
        raise InputError(f"models/baselines/{ranker.name}.py: predict: {error}") from error


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = parser(__doc__, *SCREEN)
    arguments.add_argument("--name", required=True, help="a file of models/baselines")
    arguments.add_argument("--model", required=True, help="folder for the fitted weights")
    arguments.add_argument("--predictions", required=True, help="folder for what it predicts")
    run(baseline, arguments, argv)


if __name__ == "__main__":
    main()
