"""The gate: print the comparison and exit with 1, naming each missed target, when scGPT falls short."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reverse_perturbation.retrieval.compare import TRAINED
from reverse_perturbation.storage import read_json

SHOWN = ("exact_hit@1", "exact_hit@5", "mrr", "ndcg@5", "macro_hit@1")
MEANING = {
    "exact_hit@1": "scGPT exact_hit@1",
    "mrr": "scGPT mrr",
    "mrr_of_logreg": "scGPT mrr within the allowed share of logreg's",
    "ndcg@5_of_logreg": "scGPT ndcg@5 within the allowed share of logreg's",
    "seeds": "training seeds",
}


def lines(comparison: Mapping[str, Any]) -> list[str]:
    """Lay out the comparison and the targets as text."""
    about = comparison["provenance"]
    models = [name for name, row in comparison.items() if isinstance(row, dict) and "confidence_auc" in row]
    models = [name for name in models if not name.endswith(("gap", "ratio"))]
    text = [
        f"{about['source']} data, mask {about['mask']}, {about['labels']} labels, "
        f"{about['queries']:,} {about['query']} queries, {about['conditions']} conditions, "
        f"split seed {about['split_seed']}, training seeds {', '.join(map(str, about['training_seeds']))}",
        f"{'model':<16}" + "".join(f"{name:>14}" for name in SHOWN),
    ]
    text += [f"{model:<16}" + "".join(f"{comparison[model][name]:>14.3f}" for name in SHOWN) for model in models]
    for model in (name for name in TRAINED if name in comparison):
        prefix = TRAINED[model]
        gap = comparison[f"{prefix}gap"]
        text.append(f"{f'{model}-logreg':<16}" + "".join(f"{gap[name]:>+14.3f}" for name in SHOWN))
        for name, interval in comparison[f"{prefix}interval"].items():
            text.append(f"  95 % interval of this gap in {name}: {interval['low']:+.3f} to {interval['high']:+.3f}")
    for name, target in comparison["targets"].items():
        verdict = "passed" if target["passed"] else "MISSED"
        text.append(f"{verdict}  {MEANING[name]}: {target['found']:.3f}, needed {target['needed']:.3f}")
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Print the verdict; return 0 when every target is met, 1 when one is missed, 2 without a readable comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--comparison", default="metrics/comparison.json", help="written by the stage compare")
    path = Path(parser.parse_args(argv).comparison)
    if not path.exists():
        print(f"error: {path}: no such file; run `dvc repro` first", file=sys.stderr)
        return 2
    try:
        comparison = read_json(path)
        text = lines(comparison)
    except (ValueError, KeyError, TypeError, AttributeError):
        # An uncaught exception would exit with 1, which means a missed target.
        print(f"error: {path}: not a comparison; run `dvc repro compare` to make it again", file=sys.stderr)
        return 2
    print("\n".join(text))
    missed = [MEANING[name] for name, target in comparison["targets"].items() if not target["passed"]]
    if missed:
        print(
            f"{len(missed)} of {len(comparison['targets'])} targets missed: {'; '.join(missed)}",
            file=sys.stderr,
        )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
