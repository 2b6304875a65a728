"""Combine predictions: the stack of the baselines, its fusion with the foundation model, ensembles of seeds."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from reverse_perturbation.conditions import in_space
from reverse_perturbation.config import Params
from reverse_perturbation.data.screen.contract import read_obs
from reverse_perturbation.data.screen.masked_screen import read_split
from reverse_perturbation.models.combine import average, fit_weights, weighted
from reverse_perturbation.retrieval.predictions import Predictions
from reverse_perturbation.runs import FUSION, STACK, Run, baseline_runs, ensemble_of, seeded_runs, simple_runs
from reverse_perturbation.sections import FITS
from reverse_perturbation.stages.arguments import parser, run
from reverse_perturbation.storage import keep_only, write_atomically, write_json

Fits = dict[str, Predictions]  # by the name of the fit


def combine(args: argparse.Namespace, params: Params) -> None:
    """Write the predictions of everything that is made of other models' predictions."""
    frame = read_split(args.split)
    legacy = read_obs(args.cells).loc[frame["cell"], "condition"].astype(str)
    labels = in_space(legacy.to_numpy(object), params.labels)
    validation = np.flatnonzero(frame["part"] == "validation")
    seeded, made = seeded_runs(params), {}
    read = [*seeded[params.encoder], *(only for (only,) in baseline_runs(params).values())]
    keep_only(each.predictions(args.predictions, FITS[0]).parent for each in read)
    simple = {name: _load(only, args.predictions) for name, (only,) in baseline_runs(params).items()}
    encoder = {each: _load(each, args.predictions) for each in seeded[params.encoder]}
    with write_atomically(Path(args.predictions) / "combined") as folder:
        (stack,) = simple_runs(params)[STACK]
        made[stack] = _weighted(stack, simple, labels, validation, folder.parent)
        for each in seeded.get(FUSION, []):
            own = encoder[Run(params.encoder, each.seed, "trained")]
            made[each] = _weighted(each, {params.encoder: own} | simple, labels, validation, folder.parent)
        for model, runs in seeded.items():
            members = [(encoder | made)[each] for each in runs]
            made[ensemble_of(model)] = {fit: average([member[fit] for member in members]) for fit in FITS}
        for each, fits in made.items():
            for fit, predictions in fits.items():
                predictions.save(each.predictions(folder.parent, fit))
    print(f"combine: {', '.join(each.name for each in made)}")


def _load(model: Run, folder: str | Path) -> Fits:
    return {fit: Predictions.load(model.predictions(folder, fit)) for fit in FITS}


def _weighted(
    model: Run, members: Mapping[str, Fits], labels: np.ndarray, validation: np.ndarray, folder: Path
) -> Fits:
    """Combine the members that have class probabilities; the selection fits decide the weights of both fits."""
    scoring = {name: fits for name, fits in members.items() if fits["selection"].log_proba is not None}
    weights = fit_weights({name: fits["selection"] for name, fits in scoring.items()}, labels, validation)
    write_json(model.facts(folder), {"weights": weights})
    values = np.array(list(weights.values()))
    print(f"combine: {model.name}: " + ", ".join(f"{name} {weight:.2f}" for name, weight in weights.items()))
    return {fit: weighted([fits[fit] for fits in scoring.values()], values) for fit in FITS}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = parser(__doc__, "--cells", "--split")
    arguments.add_argument(
        "--predictions", required=True, help="folder of all predictions, where those made here go too"
    )
    run(combine, arguments, argv)


if __name__ == "__main__":
    main()
