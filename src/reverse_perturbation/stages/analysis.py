"""Calibrate every model, classify its errors, and estimate what could be reached."""

import argparse
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reverse_perturbation.analysis import calibration, ceilings, cells_per_query, effects, errors
from reverse_perturbation.analysis.agreement import agreement
from reverse_perturbation.analysis.oracle import Oracle
from reverse_perturbation.conditions import genes_of
from reverse_perturbation.config import Params
from reverse_perturbation.data.screen.genes import load_aliases
from reverse_perturbation.data.screen.masked_screen import CONTROL_PART, MaskedScreen, load_masked_screen
from reverse_perturbation.errors import InputError
from reverse_perturbation.metrics import registry
from reverse_perturbation.models.baselines.pca import Pca
from reverse_perturbation.models.scgpt.encoder.vocabulary import default_vocabulary
from reverse_perturbation.prepare.simulate import Truth
from reverse_perturbation.retrieval.evaluate import Evaluator, QuerySetting, Scores
from reverse_perturbation.retrieval.predictions import Predictions
from reverse_perturbation.runs import all_runs
from reverse_perturbation.sections import FITS, Analysis
from reverse_perturbation.stages.arguments import SCREEN, parser, run
from reverse_perturbation.storage import for_spreadsheets, write_json, write_text

LIBRARY = ("reference", "validation")


def analyse(args: argparse.Namespace, params: Params) -> None:
    """Write the tables and the few figures that stand among the metrics."""
    screen = load_masked_screen(
        args.cells, args.split, args.genes, mask=params.mask, genes=params.data.genes, controls=True
    )
    embedding = Pca.load(Path(args.pca) / "final").embed(screen.log1p())
    facts, similarity = describe(screen, embedding)
    evaluator = Evaluator.read(args.cells, args.split, params)
    runs = [each for of_model in all_runs(params).values() for each in of_model]
    tables: dict[str, list[pd.DataFrame]] = {}
    for each in runs:
        scores = _scores(each.scores(args.scores))
        predictions = [Predictions.load(each.predictions(args.predictions, fit)) for fit in FITS]
        of_run = tables_of_run(evaluator, predictions, scores, params)
        of_run |= errors.tables(scores, facts, similarity, params.analysis.similar)
        for table, rows in of_run.items():
            tables.setdefault(table, []).append(rows.assign(model=each.model, seed=each.seed))
    bound: dict[str, Any] = {}
    if params.data.source == "simulated":
        bound, of_bound = simulator_bound(args, params, evaluator)
        tables["cells_per_query"].append(of_bound.assign(model=cells_per_query.BOUND, seed=None))
    written = {name: pd.concat(of_runs, ignore_index=True) for name, of_runs in tables.items()}
    for rows in written.values():
        rows["seed"] = rows["seed"].astype("Int64")
    calibrated = written["calibration"].set_index(pd.Index([each.name for each in runs]))
    written |= {"facts": facts, "split_half": reachable(screen, embedding, params.analysis)}
    for name, content in written.items():
        text = for_spreadsheets(content).to_csv(index=False, float_format="%.6f", lineterminator="\n")
        write_text(Path(args.tables) / f"{name}.csv", text)
    cap = twin_cap(evaluator.legacy, evaluator.parts)
    write_json(args.metrics, summary(calibrated, written["split_half"], cap) | bound)
    print(f"analysis: {len(runs)} runs, {len(facts)} conditions, tables in {args.tables}")


def _scores(path: Path) -> Scores:
    try:
        return Scores.load(path)
    except zlib.error as error:
        raise InputError(f"{path}: damaged ({error}); run `dvc repro` again") from None


def describe(screen: MaskedScreen, embedding: np.ndarray) -> tuple[pd.DataFrame, np.ndarray]:
    """Return what is known of each condition from its reference cells, and how alike the profiles are.

    Returns
    -------
    facts, similarity
        One row a condition: ``condition``, ``genes`` (perturbed), ``reference_cells`` (validation's included),
        ``e_distance`` to control (NaN without two control cells); and float64 [n_conditions, n_conditions].
    """
    rows = screen.rows(*LIBRARY)
    cells, labels = embedding[rows], screen.conditions[rows]
    conditions = np.array(sorted(set(labels)), dtype=object)
    control = embedding[screen.rows(CONTROL_PART)]
    facts = pd.DataFrame(
        {
            "condition": conditions,
            "genes": [len(genes_of(name)) for name in conditions],
            "reference_cells": [int((labels == name).sum()) for name in conditions],
            "e_distance": [
                effects.e_distance(cells[labels == name], control) if len(control) > 1 else np.nan
                for name in conditions
            ],
        }
    )
    return facts, effects.similarity(effects.mean_profiles(cells, labels, conditions))


def reachable(screen: MaskedScreen, embedding: np.ndarray, config: Analysis) -> pd.DataFrame:
    """Halve the library's cells and let one half retrieve the other."""
    rows = screen.rows(*LIBRARY)
    return ceilings.split_half(
        embedding[rows], screen.conditions[rows], config.cells_per_query, draws=config.draws, seed=config.seed
    )


def tables_of_run(
    evaluator: Evaluator, predictions: Sequence[Predictions], scores: Scores, params: Params
) -> dict[str, pd.DataFrame]:
    """Evaluate a run's confidence, and its scores for averages of more and more cells."""
    selection, final = predictions
    setting = evaluator.headline(selection, params.evaluate.ranking)
    validation = evaluator.scores(selection, replace(setting, query="cell"), ("reference",), "validation")
    tables = calibration.tables(scores, validation, setting.ranking, params.analysis)
    if final.embedding is not None:
        votes = calibration.measures(scores, {"agreement": agreement(evaluator, final, setting, scores)})
        tables["confidence"] = pd.concat([tables["confidence"], votes])
    return tables | {"cells_per_query": by_cells_per_query(evaluator, final, params.analysis)}


def by_cells_per_query(evaluator: Evaluator, predictions: Predictions, config: Analysis) -> pd.DataFrame:
    """Score averages of more and more cells by the classifier and by the section library, where the model has them."""
    rankings = ["classifier"] if predictions.log_proba is not None else []
    rankings += [evaluator.library.kind] if predictions.embedding is not None else []
    tables = [
        cells_per_query.by_size(
            evaluator,
            config.cells_per_query,
            ranking,
            lambda sized, setting: sized.scores(predictions, setting),
        )
        for ranking in rankings
    ]
    return pd.concat(tables, ignore_index=True)


def simulator_bound(
    args: argparse.Namespace, params: Params, evaluator: Evaluator
) -> tuple[dict[str, dict[str, float]], pd.DataFrame]:
    """Return the best expected metrics of any model on the headline's queries, and by number of cells."""
    data = params.data
    truth = Truth.draw(pd.read_csv(data.path), data.simulated, list(default_vocabulary()), load_aliases())
    oracle = Oracle.of(
        truth, load_masked_screen(args.cells, args.split, args.genes, mask=params.mask, genes="all"), params.mask
    )
    headline = oracle.scores(evaluator, QuerySetting("posterior", params.query.kind, params.labels))
    values = registry.compute(headline.scores, headline.labels, headline.conditions)
    rows = cells_per_query.by_size(
        evaluator,
        params.analysis.cells_per_query,
        "posterior",
        lambda sized, setting: oracle.scores(sized, setting, equal=True),
    )
    return {"simulator_bound": {name: values[name] for name in registry.shown_in("summary")}}, rows


def twin_cap(legacy: np.ndarray, parts: np.ndarray) -> dict[str, float]:
    """Return the metrics of a model that knows every query's perturbation, in the legacy label space."""
    library = legacy[np.isin(parts, LIBRARY)].astype(str)
    conditions = np.unique(library).astype(object)
    labels = legacy[parts == "query"]
    scores = ceilings.twin_scores(labels, conditions, library)
    values = registry.compute(scores, labels, conditions)
    return {name: values[name] for name in registry.shown_in("summary")}


def summary(calibrated: pd.DataFrame, split_half: pd.DataFrame, cap: dict[str, float]) -> dict[str, Any]:
    """Choose what stands among the metrics."""
    by_size = split_half.groupby("cells_per_query", sort=False)[["exact_hit@1", "mrr"]]
    counted = split_half.groupby("cells_per_query").size().to_dict()
    return {
        "calibration": {
            name: {key: float(row[key]) for key in ("temperature", "ece_before", "ece_after", "ece_if_calibrated")}
            for name, row in calibrated.to_dict("index").items()
        },
        "twin_cap_of_legacy_labels": cap,
        "split_half": {
            name: {key: float(value) for key, value in row.items()} | {"conditions": int(counted[name])}
            for name, row in by_size.mean().to_dict("index").items()
        },
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = parser(__doc__, *SCREEN)
    arguments.add_argument("--pca", required=True, help="folder of the fitted principal components")
    arguments.add_argument("--predictions", required=True, help="folder of all predictions")
    arguments.add_argument("--scores", required=True, help="folder of the score files")
    arguments.add_argument("--tables", required=True, help="folder for the tables, .csv")
    arguments.add_argument("--metrics", required=True, help="where to write the few figures among the metrics, .json")
    run(analyse, arguments, argv)


if __name__ == "__main__":
    main()
