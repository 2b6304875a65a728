"""Rank the conditions for every query and measure how well, for models of one training seed or without."""

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from reverse_perturbation.config import Params
from reverse_perturbation.retrieval import metrics
from reverse_perturbation.retrieval.evaluate import Evaluator
from reverse_perturbation.retrieval.outputs import Outputs
from reverse_perturbation.stages.arguments import parser, run
from reverse_perturbation.stages.evaluator import evaluator_of
from reverse_perturbation.storage import read_json, sha256, write_json


def evaluate(args: argparse.Namespace, params: Params) -> None:
    """Write the headline metrics and scores of every model asked for."""
    evaluator = evaluator_of(args.cells, args.split, params)
    shared = _provenance(args, params)
    for model in args.models:
        # A baseline has no training seed; its files carry the split's.
        name = model if args.seed is None else f"{model}-{args.seed}"
        file = f"{model}-{params.split.seed if args.seed is None else args.seed}"
        outputs = {fit: Outputs.load(Path(args.outputs) / name / f"{fit}.npz") for fit in ("selection", "final")}
        setting = evaluator.headline(outputs["final"], params.evaluate.ranking)
        scores = evaluator.scores(outputs["final"], setting)
        skipped = evaluator.skipped(setting)
        found = metrics.compute(scores.scores, scores.labels, scores.conditions)
        trained = read_json(Path(args.trained) / name / "config.json") if args.trained else {}
        write_json(
            Path(args.metrics) / f"{file}.json",
            found
            | {
                "validation": _validation(outputs["selection"], evaluator, params),
                "chance": metrics.chance(scores.labels, scores.conditions),
                "provenance": {"model": model}
                | shared
                | {"trainable_parameters": trained.get("trainable_parameters")}
                | {"screen_sha256": outputs["final"].screen_sha256}
                | asdict(setting)
                | {
                    "queries": len(scores.labels),
                    "conditions": len(scores.conditions),
                    "skipped_conditions": len(skipped),
                },
            },
        )
        scores.save(Path(args.scores) / f"{file}.npz")
        print(
            f"evaluate: {model} ({setting.ranking}, {setting.query} queries): exact_hit@1 "
            f"{found['exact_hit@1']:.3f}, mrr {found['mrr']:.3f} on {len(scores.labels):,} queries"
        )
        if skipped:
            few = f"{len(skipped)} conditions have fewer than {params.query.cells} query cells"
            print(f"evaluate: {few} and are left out")


def _validation(outputs: Outputs, evaluator: Evaluator, params: Params) -> dict[str, float]:
    """Measure the fit that has not seen the validation cells on them; always single cells."""
    setting = replace(evaluator.headline(outputs, params.evaluate.ranking), query="cell")
    scores = evaluator.scores(outputs, setting, ("reference",), "validation")
    found = metrics.compute(scores.scores, scores.labels, scores.conditions)
    return {name: found[name] for name in ("exact_hit@1", "mrr")}


def _provenance(args: argparse.Namespace, params: Params) -> dict[str, object]:
    """Return what is the same for all models of a call."""
    return {
        "source": params.data.source,
        "data_sha256": sha256(args.cells),
        "split_sha256": sha256(args.split),
        "checkpoint_sha256": sha256(args.checkpoint) if args.checkpoint else None,
        "genes": params.data.genes,
        "mask": params.mask,
        "split_kind": params.split.kind,
        "split_seed": params.split.seed,
        "training_seed": args.seed,
        "library": params.library.model_dump(),
        "query_draws": params.query.model_dump(exclude={"kind"}),
        "evaluator_sha256": _evaluator_sha256(),
    }


def _evaluator_sha256() -> str:
    """Hash the code that ranks and measures."""
    files = sorted(Path(metrics.__file__).parent.glob("*.py"))
    return hashlib.sha256("".join(sha256(file) for file in files).encode()).hexdigest()


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = parser(__doc__, "--cells", "--split")
    arguments.add_argument("--models", required=True, nargs="+", help="names of the models")
    arguments.add_argument("--seed", type=int, help="training seed, where there is one")
    arguments.add_argument("--checkpoint", help="scGPT folder the models were trained from")
    arguments.add_argument("--trained", help="folder of the trained models, where there are some")
    arguments.add_argument("--outputs", required=True, help="folder of the models' outputs")
    arguments.add_argument("--metrics", required=True, help="folder for the headline metrics, .json")
    arguments.add_argument("--scores", required=True, help="folder for the headline's scores, .npz")
    run(evaluate, arguments, argv)


if __name__ == "__main__":
    main()
