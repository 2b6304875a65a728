"""Calibrate every model, sort its errors, and say what could be reached at all."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax

from reverse_perturbation.analysis import calibration, ceilings, effects, errors
from reverse_perturbation.conditions import genes_of
from reverse_perturbation.config import Analysis, Params
from reverse_perturbation.data.contract import read_obs
from reverse_perturbation.data.screen import CONTROL_PART, Screen
from reverse_perturbation.models.pca import Pca
from reverse_perturbation.retrieval import metrics
from reverse_perturbation.retrieval.confidence import aurc, certainty, confidence_auc, margin, roc_auc
from reverse_perturbation.retrieval.evaluate import Evaluator, Scores, Setting
from reverse_perturbation.retrieval.outputs import Outputs
from reverse_perturbation.retrieval.rank import truth_index
from reverse_perturbation.stages.arguments import parser, run
from reverse_perturbation.stages.screen import SCREEN, screen_of
from reverse_perturbation.storage import write_json, write_text

LIBRARY = ("reference", "validation")


def analyse(args: argparse.Namespace, params: Params) -> None:
    """Write the tables and the few figures that stand among the metrics."""
    screen = screen_of(args, params, controls=True)
    embedding = Pca.load(Path(args.pca) / "final").embed(screen.log1p())
    facts, similarity = describe(screen, embedding)
    legacy = read_obs(args.cells).loc[screen.cells, "condition"].astype(str).to_numpy(dtype=object)
    in_split = screen.parts != CONTROL_PART
    evaluator = Evaluator(
        cells=screen.cells[in_split],
        legacy=legacy[in_split],
        parts=screen.parts[in_split],
        fitted_space=params.labels,
        library=params.library,
        query=params.query,
    )
    files = {f"{model}-{seed}": f"{model}-{seed}" for model in params.models for seed in params.seeds}
    files |= {f"{name}-{params.split.seed}": name for name in args.baselines}
    tables: dict[str, list[pd.DataFrame]] = {
        name: [] for name in ("confidence", "calibration", "reliability", "conditions", "groups", "confusions")
    }
    for name, folder in files.items():
        found = Scores.load(Path(args.scores) / f"{name}.npz")
        selection = Outputs.load(Path(args.outputs) / folder / "selection.npz")
        setting = evaluator.headline(selection, params.evaluate.ranking)
        held_out = evaluator.scores(
            selection, Setting(setting.ranking, "cell", setting.labels), ("reference",), "validation"
        )
        of_model = calibrate(found, held_out, setting.ranking, params.analysis) | sort_errors(
            found, facts, similarity, params.analysis
        )
        for table, rows in of_model.items():
            tables[table].append(rows.assign(run=name))
    folder = Path(args.tables)
    written = {name: pd.concat(rows, ignore_index=True) for name, rows in tables.items()}
    reach = reachable(screen, embedding, params.analysis)
    written |= {"facts": facts, "split_half": reach}
    for name, table in written.items():
        write_text(folder / f"{name}.csv", table.to_csv(index=False, float_format="%.6f", lineterminator="\n"))
    write_json(args.metrics, summary(written, twin_cap(legacy, screen.parts)))
    print(f"analysis: {len(files)} runs, {len(facts)} conditions, tables in {folder}")


def describe(screen: Screen, embedding: np.ndarray) -> tuple[pd.DataFrame, np.ndarray]:
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


def calibrate(found: Scores, held_out: Scores, ranking: str, config: Analysis) -> dict[str, pd.DataFrame]:
    """Fit the temperature on validation and judge confidence on the queries.

    Returns
    -------
    dict
        ``confidence``: one row a measure; ``calibration``: one row; ``reliability``: one row a bin, before and after.
    """
    correct = metrics.per_query("exact_hit@1", found.scores, found.labels, found.conditions)
    temperature = calibration.fit_temperature(
        calibration.logits(held_out.scores, ranking), truth_index(held_out.labels, held_out.conditions)
    )
    raw = calibration.logits(found.scores, ranking)
    truth = truth_index(found.labels, found.conditions)
    bins = {}
    row: dict[str, Any] = {"ranking": ranking, "temperature": temperature}
    for when, divisor in (("before", 1.0), ("after", temperature)):
        bins[when] = calibration.reliability(raw / divisor, correct, config.bins).assign(when=when)
        row[f"ece_{when}"] = calibration.expected_calibration_error(bins[when])
        row[f"nll_{when}"] = calibration.negative_log_likelihood(raw / divisor, truth)
    measures = {"margin": margin(found.scores), "entropy": certainty(softmax(raw / temperature, axis=1))}
    rows = [
        {
            "measure": name,
            "confidence_auc": confidence_auc(found.scores, correct, values),
            "aurc": aurc(found.scores, correct, values),
            "confidence_roc_auc": roc_auc(found.scores, correct, values),
        }
        for name, values in measures.items()
    ]
    return {
        "confidence": pd.DataFrame(rows),
        "calibration": pd.DataFrame([row]),
        "reliability": pd.concat(bins.values(), ignore_index=True),
    }


def sort_errors(
    found: Scores, facts: pd.DataFrame, similarity: np.ndarray, config: Analysis
) -> dict[str, pd.DataFrame]:
    """Sort one model's answers by condition, by group of conditions, and by what they are to the truth."""
    place = pd.Index(facts["condition"]).get_indexer(found.conditions)
    relation = errors.relations(found.conditions, similarity[np.ix_(place, place)], config.similar)
    parts = (found.scores, found.labels, found.conditions)
    table = errors.by_condition(*parts, relation)
    return {
        "conditions": table,
        "groups": errors.by_group(table, facts),
        "confusions": errors.confusion_classes(*parts, relation),
    }


def reachable(screen: Screen, embedding: np.ndarray, config: Analysis) -> pd.DataFrame:
    """Halve the library's cells and let one half retrieve the other."""
    rows = screen.rows(*LIBRARY)
    return ceilings.split_half(
        embedding[rows], screen.conditions[rows], config.averaged, draws=config.draws, seed=config.seed
    )


def twin_cap(legacy: np.ndarray, parts: np.ndarray) -> dict[str, float]:
    """Measure one who knows every query's perturbation, in the legacy label space."""
    library = legacy[np.isin(parts, LIBRARY)].astype(str)
    conditions = np.unique(library).astype(object)
    labels = legacy[parts == "query"]
    scores = ceilings.twin_scores(labels, conditions, library)
    found = metrics.compute(scores, labels, conditions)
    return {name: found[name] for name in ("exact_hit@1", "exact_hit@5", "macro_hit@1", "mrr", "ndcg@5")}


def summary(tables: dict[str, pd.DataFrame], cap: dict[str, float]) -> dict[str, Any]:
    """Choose what stands among the metrics."""
    calibrated = tables["calibration"].set_index("run")
    reach = tables["split_half"]
    overall = reach.groupby("averaged", sort=False)[["exact_hit@1", "mrr"]].mean()
    counted = reach.groupby("averaged").size()
    return {
        "calibration": {
            name: {key: float(row[key]) for key in ("temperature", "ece_before", "ece_after")}
            for name, row in calibrated.iterrows()
        },
        "twin_cap_of_legacy_labels": cap,
        "split_half": {
            name: {key: float(value) for key, value in row.items()} | {"conditions": int(counted[name])}
            for name, row in overall.iterrows()
        },
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = parser(__doc__, *SCREEN)
    arguments.add_argument("--pca", required=True, help="folder of the fitted principal components")
    arguments.add_argument("--outputs", required=True, help="folder of the models' outputs")
    arguments.add_argument("--scores", required=True, help="folder of the score files")
    arguments.add_argument("--baselines", required=True, nargs="+", help="names of the baselines")
    arguments.add_argument("--tables", required=True, help="folder for the tables, .csv")
    arguments.add_argument("--metrics", required=True, help="where to write the few figures among the metrics, .json")
    run(analyse, arguments, argv)


if __name__ == "__main__":
    main()
