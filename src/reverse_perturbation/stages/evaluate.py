"""Rank the conditions for every query and measure how well, for one model and seed."""

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from reverse_perturbation.config import Params
from reverse_perturbation.retrieval import metrics
from reverse_perturbation.retrieval.evaluate import Evaluator
from reverse_perturbation.retrieval.outputs import Outputs
from reverse_perturbation.stages.arguments import parser, run
from reverse_perturbation.stages.evaluator import evaluator_of
from reverse_perturbation.storage import read_json, sha256, write_json


def evaluate(args: argparse.Namespace, params: Params) -> None:
    """Write the headline metrics and scores."""
    evaluator = evaluator_of(args.cells, args.split, params)
    final = Outputs.load(Path(args.outputs) / "final.npz")
    setting = evaluator.headline(final, params.evaluate.ranking)
    scores = evaluator.scores(final, setting)
    skipped = evaluator.skipped(setting)
    found = metrics.compute(scores.scores, scores.labels, scores.conditions)
    validation = _validation(args, evaluator, params)
    write_json(
        args.metrics,
        found
        | {
            "validation": validation,
            "chance": metrics.chance(scores.labels, scores.conditions),
            "provenance": _provenance(args, params)
            | {"screen_sha256": final.screen_sha256, "evaluator_sha256": _evaluator_sha256()}
            | asdict(setting)
            | {
                "queries": len(scores.labels),
                "conditions": len(scores.conditions),
                "skipped_conditions": len(skipped),
            },
        },
    )
    scores.save(args.scores)
    print(
        f"evaluate: {args.model} ({setting.ranking}, {setting.query} queries): exact_hit@1 "
        f"{found['exact_hit@1']:.3f}, mrr {found['mrr']:.3f} on {len(scores.labels):,} queries"
    )
    if skipped:
        print(f"evaluate: {len(skipped)} conditions have fewer than {params.query.cells} query cells and are left out")


def _validation(args: argparse.Namespace, evaluator: Evaluator, params: Params) -> dict[str, float]:
    """Measure the fit that has not seen the validation cells on them; always single cells."""
    outputs = Outputs.load(Path(args.outputs) / "selection.npz")
    setting = evaluator.headline(outputs, params.evaluate.ranking)
    setting = type(setting)(setting.ranking, "cell", setting.labels)
    scores = evaluator.scores(outputs, setting, ("reference",), "validation")
    found = metrics.compute(scores.scores, scores.labels, scores.conditions)
    return {name: found[name] for name in ("exact_hit@1", "mrr")}


def _provenance(args: argparse.Namespace, params: Params) -> dict[str, object]:
    return {
        "model": args.model,
        "source": params.data.source,
        "data_sha256": sha256(args.cells),
        "split_sha256": sha256(args.split),
        "checkpoint_sha256": sha256(args.checkpoint) if args.checkpoint else None,
        "genes": params.data.genes,
        "mask": params.mask,
        "split_kind": params.split.kind,
        "split_seed": params.split.seed,
        "training_seed": args.seed,
        "trainable_parameters": read_json(Path(args.trained) / "config.json")["trainable_parameters"]
        if args.trained
        else None,
        "library": params.library.model_dump(),
        "query_draws": params.query.model_dump(exclude={"kind"}),
    }


def _evaluator_sha256() -> str:
    """Hash the code that ranks and measures."""
    files = sorted(Path(metrics.__file__).parent.glob("*.py"))
    return hashlib.sha256("".join(sha256(file) for file in files).encode()).hexdigest()


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = parser(__doc__, "--cells", "--split")
    arguments.add_argument("--model", required=True, help="name of the model")
    arguments.add_argument("--outputs", required=True, help="folder with selection.npz and final.npz")
    arguments.add_argument("--checkpoint", help="scGPT folder the model was trained from")
    arguments.add_argument("--trained", help="folder of the trained weights, where there are some")
    arguments.add_argument("--seed", type=int, help="training seed, where there is one")
    arguments.add_argument("--metrics", required=True, help="where to write the headline metrics, .json")
    arguments.add_argument("--scores", required=True, help="where to write the headline's scores, .npz")
    run(evaluate, arguments, argv)


if __name__ == "__main__":
    main()
