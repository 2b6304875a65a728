"""Rank the conditions for every query and compute the metrics of the baselines, or of all other models."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import get_args

import reverse_perturbation.metrics
import reverse_perturbation.retrieval
from reverse_perturbation.config import Params
from reverse_perturbation.data.screen.contract import read_genes, read_obs
from reverse_perturbation.data.screen.mask import target_columns
from reverse_perturbation.metrics import registry
from reverse_perturbation.retrieval.evaluate import Evaluator
from reverse_perturbation.retrieval.predictions import Predictions
from reverse_perturbation.runs import Group, Run, all_runs
from reverse_perturbation.sections import FITS
from reverse_perturbation.stages.arguments import parser, run
from reverse_perturbation.storage import keep_only, read_json, sha256, source_sha256, write_json

VALIDATED = registry.shown_in("brief")


def evaluate(args: argparse.Namespace, params: Params) -> None:
    """Write the headline metrics of every run of a group and the scores behind them."""
    evaluator = Evaluator.read(args.cells, args.split, params)
    about = _provenance(args, params)
    evaluated = [each for runs in all_runs(params).values() for each in runs if each.group == args.group]
    keep_only(each.predictions(args.predictions, FITS[0]).parent for each in evaluated)
    for each in evaluated:
        _evaluate_run(each, evaluator, about, args, params)


def _evaluate_run(
    model: Run, evaluator: Evaluator, about: Mapping[str, object], args: argparse.Namespace, params: Params
) -> None:
    predictions = {fit: Predictions.load(model.predictions(args.predictions, fit)) for fit in FITS}
    setting = evaluator.headline(predictions["final"], params.evaluate.ranking)
    scores = evaluator.scores(predictions["final"], setting)
    skipped = evaluator.skipped(setting)
    values = registry.compute(scores.scores, scores.labels, scores.conditions)
    known = {
        "validation": _validation(predictions["selection"], evaluator, params),
        "chance": registry.chance(scores.labels, scores.conditions),
    }
    facts = read_json(path) if (path := model.facts(args.predictions)).exists() else {}
    provenance = (
        {"model": model.model}
        | dict(about)
        | {"training_seed": model.seed, "finding": facts.get("training", {}).get("finding")}
        | {"screen_sha256": predictions["final"].screen_sha256}
        | asdict(setting)
        | {"queries": len(scores.labels), "conditions": len(scores.conditions), "skipped_conditions": len(skipped)}
    )
    write_json(model.metrics(args.metrics), values | known | facts | {"provenance": provenance})
    scores.save(model.scores(args.scores))
    print(
        f"evaluate: {model.name} ({setting.ranking}, {setting.query} queries): exact_hit@1 "
        f"{values['exact_hit@1']:.3f}, mrr {values['mrr']:.3f} on {len(scores.labels):,} queries"
    )
    if skipped:
        print(
            f"evaluate: {len(skipped)} conditions have fewer than {params.query.cells_per_query} query cells and are "
            "left out"
        )


def _validation(predictions: Predictions, evaluator: Evaluator, params: Params) -> dict[str, float]:
    """Evaluate the fit that has not seen the validation cells on them; always single cells."""
    setting = replace(evaluator.headline(predictions, params.evaluate.ranking), query="cell")
    scores = evaluator.scores(predictions, setting, ("reference",), "validation")
    values = registry.compute(scores.scores, scores.labels, scores.conditions)
    return {name: values[name] for name in VALIDATED}


def _provenance(args: argparse.Namespace, params: Params) -> dict[str, object]:
    labels = read_obs(args.cells)["condition"].astype(str).unique()
    targets = target_columns(labels, read_genes(args.cells))
    return {
        "source": params.data.source,
        "data": params.data.name,
        "data_sha256": sha256(args.cells),
        "split_sha256": sha256(args.split),
        "checkpoint_sha256": sha256(args.checkpoint) if args.checkpoint else None,
        "genes": params.data.genes,
        "mask": params.mask,
        "targets": len(targets),
        "measured_targets": sum(bool(columns) for columns in targets.values()),
        "split_kind": params.split.kind,
        "split_seed": params.split.seed,
        "library": params.library.model_dump(),
        "query_draws": params.query.model_dump(exclude={"kind"}),
        "evaluator_sha256": source_sha256(
            Path(package.__path__[0]) for package in (reverse_perturbation.metrics, reverse_perturbation.retrieval)
        ),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = parser(__doc__, "--cells", "--split")
    arguments.add_argument("--group", required=True, choices=get_args(Group), help="whose metrics to compute")
    arguments.add_argument("--checkpoint", help="folder of the foundation model, where one has a part in the group")
    arguments.add_argument("--predictions", required=True, help="folder of all predictions")
    arguments.add_argument("--metrics", required=True, help="folder for the metrics, GROUP/NAME.json")
    arguments.add_argument("--scores", required=True, help="folder for the scores, GROUP/NAME.npz")
    run(evaluate, arguments, argv)


if __name__ == "__main__":
    main()
