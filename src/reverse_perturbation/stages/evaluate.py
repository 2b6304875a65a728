"""Rank the conditions for every query and compute the metrics of one model, with its training seed where it has one."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import reverse_perturbation.metrics
import reverse_perturbation.retrieval
from reverse_perturbation.config import Params
from reverse_perturbation.data.screen.contract import read_genes, read_obs
from reverse_perturbation.data.screen.mask import target_columns
from reverse_perturbation.metrics import registry
from reverse_perturbation.retrieval.evaluate import Evaluator
from reverse_perturbation.retrieval.predictions import Predictions
from reverse_perturbation.runs import Run
from reverse_perturbation.sections import FITS
from reverse_perturbation.stages.arguments import parser, run
from reverse_perturbation.storage import read_json, sha256, source_sha256, write_json

VALIDATED = registry.shown_in("brief")


def evaluate(args: argparse.Namespace, params: Params) -> None:
    """Write the headline metrics and the scores behind them."""
    model = Run(args.model, args.seed)
    evaluator = Evaluator.read(args.cells, args.split, params)
    predictions = {fit: Predictions.load(model.predictions(args.predictions, fit)) for fit in FITS}
    setting = evaluator.headline(predictions["final"], params.evaluate.ranking)
    scores = evaluator.scores(predictions["final"], setting)
    skipped = evaluator.skipped(setting)
    values = registry.compute(scores.scores, scores.labels, scores.conditions)
    validated = {"validation": _validation(predictions["selection"], evaluator, params)}
    if (cross_validation := model.cross_validation(args.predictions)).exists():
        validated["cross_validation"] = read_json(cross_validation)
    trained = read_json(model.weights(args.trained) / "config.json") if args.trained else {}
    provenance = (
        {"model": args.model}
        | _provenance(args, params)
        | {"trainable_parameters": trained.get("trainable_parameters")}
        | {"screen_sha256": predictions["final"].screen_sha256}
        | asdict(setting)
        | {"queries": len(scores.labels), "conditions": len(scores.conditions), "skipped_conditions": len(skipped)}
    )
    write_json(
        model.metrics(args.metrics),
        values
        | validated
        | {
            "chance": registry.chance(scores.labels, scores.conditions),
            "provenance": provenance,
        },
    )
    scores.save(model.scores(args.scores))
    print(
        f"evaluate: {args.model} ({setting.ranking}, {setting.query} queries): exact_hit@1 "
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
        "training_seed": args.seed,
        "library": params.library.model_dump(),
        "query_draws": params.query.model_dump(exclude={"kind"}),
        "evaluator_sha256": source_sha256(
            Path(package.__path__[0]) for package in (reverse_perturbation.metrics, reverse_perturbation.retrieval)
        ),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = parser(__doc__, "--cells", "--split")
    arguments.add_argument("--model", required=True, help="name of the model")
    arguments.add_argument("--seed", type=int, help="training seed, where the model has one")
    arguments.add_argument("--checkpoint", help="folder of the foundation model, where it was trained from one")
    arguments.add_argument("--trained", help="folder of the trained models, where it was trained")
    arguments.add_argument("--predictions", required=True, help="folder of all predictions")
    arguments.add_argument("--metrics", required=True, help="folder for the metrics, .json")
    arguments.add_argument("--scores", required=True, help="folder for the scores, .npz")
    run(evaluate, arguments, argv)


if __name__ == "__main__":
    main()
