"""The verdict: print the comparison, name each missed target, and exit with 1 where there is one."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reverse_perturbation.metrics.registry import REGISTRY, shown_in
from reverse_perturbation.runs import REFERENCE_BASELINE, title
from reverse_perturbation.storage import read_json

SHOWN = shown_in("summary")
FINDINGS = {
    "ahead": "ahead (Holm's p below 0.05)",
    "behind": "behind (Holm's p below 0.05)",
    "equivalent": "equivalent (shown to be within the allowed share)",
    "open": "open: neither a difference nor equivalence is shown",
}


def meaning(target: str, encoder: str) -> str:
    """Describe a target in words."""
    name = title(encoder)
    return {
        "exact_hit@1": f"{name} exact_hit@1",
        "mrr": f"{name} mrr",
        "mrr_of_logreg": f"{name} mrr within the allowed share of logreg's",
        "ndcg@5_of_logreg": f"{name} ndcg@5 within the allowed share of logreg's",
        "mrr_of_strongest": f"{name} mrr within the allowed share of the strongest baseline's",
        "ndcg@5_of_strongest": f"{name} ndcg@5 within the allowed share of the strongest baseline's",
        "seeds": "training seeds",
    }[target]


def missed_targets(comparison: Mapping[str, Any]) -> list[str]:
    """Return the targets that are missed, in words."""
    encoder = comparison["provenance"]["models"][0]
    return [meaning(name, encoder) for name, target in comparison["targets"].items() if not target["passed"]]


def masked_targets(about: Mapping[str, Any]) -> str:
    """Say how many targets the mask can hide at all, from the provenance of a comparison."""
    return f"{about['measured_targets']} of {about['targets']} targets are measured and can be masked"


def lines(comparison: Mapping[str, Any]) -> list[str]:
    """Lay out the comparison and the targets as text."""
    about = comparison["provenance"]
    models, baselines = about["models"], about["baselines"]
    best = comparison["strongest"]["baseline"]
    wide = max(len(f"{model} - {baseline}") for model in models for baseline in (REFERENCE_BASELINE, best))
    text = [
        f"{about['data']} data, mask {about['mask']}, {about['labels']} labels, "
        f"{about['queries']:,} {about['query']} queries, {about['conditions']} conditions, "
        f"split seed {about['split_seed']}, training seeds {', '.join(map(str, about['training_seeds']))}; "
        f"{masked_targets(about)}",
        f"{'model':<{wide}}" + "".join(f"{name:>14}" for name in SHOWN),
    ]
    if lower := [name for name in SHOWN if REGISTRY[name].direction == "lower"]:
        text.append(f"  lower is better: {', '.join(lower)}")
    text += [
        f"{model:<{wide}}" + "".join(f"{comparison[model][name]:>14.3f}" for name in SHOWN)
        for model in [*models, *baselines]
    ]
    text.append(f"strongest baseline, by cross-validation in the known cells: {best}")
    text += [
        f"{f'{model} - {baseline}':<{wide}} mrr {test['gap']:+.3f}, 95 % interval {test['low']:+.3f} to "
        f"{test['high']:+.3f}: {FINDINGS[test['finding']]}"
        for model, of_model in comparison["tests"].items()
        for baseline, test in of_model.items()
    ]
    for name, target in comparison["targets"].items():
        verdict = "passed" if target["passed"] else "MISSED"
        found, needed = (number(target[key]) for key in ("found", "needed"))
        text.append(f"{verdict}  {meaning(name, models[0])}: {found}, needed {needed}")
    return text


def number(value: float) -> str:
    """Write a count as an integer and anything else with three decimals."""
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the verdict; return 0 when every target is met, 1 when one is missed, 2 without a readable comparison."""
    parser = argparse.ArgumentParser(prog="reverse-perturbation check", description=__doc__)
    parser.add_argument("--comparison", default="metrics/comparison.json", help="written by the stage compare")
    path = Path(parser.parse_args(argv).comparison)
    if not path.exists():
        print(f"error: {path}: no such file; run `dvc repro` first", file=sys.stderr)
        return 2
    try:
        comparison = read_json(path)
        text, missed = lines(comparison), missed_targets(comparison)
    except (ValueError, KeyError, TypeError, AttributeError):
        # An uncaught exception would exit with 1, which means a missed target.
        print(f"error: {path}: not a comparison; run `dvc repro compare` to make it again", file=sys.stderr)
        return 2
    print("\n".join(text))
    if missed:
        print(f"{len(missed)} of {len(comparison['targets'])} targets missed: {'; '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
