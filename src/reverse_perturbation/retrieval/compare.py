"""scGPT against logistic regression: the gap, its interval, and the specification's targets."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reverse_perturbation.config import Compare, Targets
from reverse_perturbation.errors import InputError
from reverse_perturbation.retrieval import metrics
from reverse_perturbation.retrieval.evaluate import Scores
from reverse_perturbation.retrieval.significance import over_seeds, paired_bootstrap
from reverse_perturbation.storage import read_json

# What must be the same in the metrics files of models that are compared.
SHARED = (
    "source",
    "data_sha256",
    "split_sha256",
    "genes",
    "mask",
    "labels",
    "split_seed",
    "query",
    "query_draws",
    "library",
    "queries",
    "conditions",
)
COMPARED = ("exact_hit@1", "exact_hit@5", "relevant_hit@1", "macro_hit@1", "mrr", "ndcg@5", "confidence_auc")
TESTED = ("exact_hit@1", "mrr", "ndcg@5")


@dataclass(frozen=True)
class Run:
    """One metrics file and the scores it was computed from."""

    name: str
    metrics: Mapping[str, Any]
    scores: Scores

    @classmethod
    def load(cls, name: str, metrics: str | Path, scores: str | Path) -> "Run":
        """Read ``<name>.json`` and ``<name>.npz`` from the two folders.

        Raises
        ------
        InputError
            If one of them is missing or broken.
        """
        path = Path(metrics) / f"{name}.json"
        try:
            content = read_json(path)
        except FileNotFoundError:
            raise InputError(f"{path}: no such file; run `dvc repro` to make it") from None
        except ValueError as error:
            raise InputError(f"{path}: not a metrics file ({error}); run `dvc repro` again") from None
        return cls(name, content, Scores.load(Path(scores) / f"{name}.npz"))


def check_aligned(runs: list[Run]) -> None:
    """Make sure that all runs answered the same question.

    Raises
    ------
    InputError
        Naming the first provenance field that differs, and where.
    """
    first = runs[0]
    for run in runs[1:]:
        for field in SHARED:
            a, b = (each.metrics["provenance"].get(field) for each in (first, run))
            if a != b:
                raise InputError(
                    f"{run.name} and {first.name} cannot be compared: provenance.{field} is {b!r} in one and {a!r} in "
                    "the other; run `dvc repro`"
                )
        for part in ("queries", "labels"):
            if list(getattr(first.scores, part)) != list(getattr(run.scores, part)):
                raise InputError(f"{run.name} and {first.name} have different {part}; run `dvc repro`")
        if set(first.scores.conditions) != set(run.scores.conditions):
            raise InputError(f"{run.name} and {first.name} rank different conditions; run `dvc repro`")


def compare(scgpt: list[Run], baselines: Mapping[str, Run], config: Compare, targets: Targets) -> dict[str, Any]:
    """Set scGPT's seeds against the baselines.

    Parameters
    ----------
    scgpt
        One run a training seed.
    baselines
        Must hold ``logreg``; others are listed beside it.
    config
        Of the paired bootstrap.
    targets
        The specification's success criteria.

    Returns
    -------
    dict
        ``scgpt`` and each baseline (metrics; for scGPT the mean over seeds, ``std``, and with at least two seeds
        ``seeds``: mean, std, and the 95 % interval of the mean, ``low`` and ``high``, of the tested metrics), ``gap``
        (scGPT minus logreg), ``ratio`` (None where logreg has 0), ``interval`` (95 %, of the gap over paired queries),
        ``targets``, ``provenance``.

    Raises
    ------
    InputError
        If there is no logreg, a training seed comes twice, or the runs did not answer the same question.
    """
    if "logreg" not in baselines:
        raise InputError(f"logreg is not among the baselines ({', '.join(baselines)}); add it to --baselines")
    training_seeds = [run.metrics["provenance"]["training_seed"] for run in scgpt]
    if len(set(training_seeds)) < len(training_seeds):
        raise InputError(f"params.yaml: seeds: a training seed comes twice in {training_seeds}; list each once")
    runs = [*scgpt, *baselines.values()]
    check_aligned(runs)
    logreg = baselines["logreg"]
    values = {name: np.array([run.metrics[name] for run in scgpt]) for name in COMPARED}
    mean = {name: float(v.mean()) for name, v in values.items()}
    std = {name: float(v.std(ddof=1)) if len(v) > 1 else 0.0 for name, v in values.items()}
    base = {name: float(logreg.metrics[name]) for name in COMPARED}
    interval = {}
    for name in TESTED:
        ours = np.mean([metrics.per_query(name, *_parts(run)) for run in scgpt], axis=0)
        theirs = metrics.per_query(name, *_parts(logreg))
        gap = paired_bootstrap(ours, theirs, logreg.scores.labels, draws=config.draws, seed=config.seed)
        interval[name] = {"low": gap.low, "high": gap.high}
    seeds = {"seeds": {name: asdict(over_seeds(values[name])) for name in TESTED}} if len(scgpt) > 1 else {}
    provenance = scgpt[0].metrics["provenance"]
    return {
        "scgpt": mean | {"std": std} | seeds,
        **{name: {m: float(run.metrics[m]) for m in COMPARED} for name, run in baselines.items()},
        "gap": {name: mean[name] - base[name] for name in COMPARED},
        "interval": interval,
        "ratio": {name: mean[name] / base[name] if base[name] else None for name in COMPARED},
        "targets": judge(mean, base, len(scgpt), targets),
        "provenance": {field: provenance[field] for field in SHARED} | {"training_seeds": training_seeds},
    }


def judge(scgpt: Mapping[str, float], logreg: Mapping[str, float], seeds: int, targets: Targets) -> dict[str, Any]:
    """Hold scGPT against the specification: each target with what was needed, what was found, and whether it passed."""
    least = 1 - targets.relative_gap
    wanted = {
        "exact_hit@1": (scgpt["exact_hit@1"], targets.exact_hit_at_1),
        "mrr": (scgpt["mrr"], targets.mrr),
        "mrr_of_logreg": (scgpt["mrr"], least * logreg["mrr"]),
        "ndcg@5_of_logreg": (scgpt["ndcg@5"], least * logreg["ndcg@5"]),
        "seeds": (seeds, 2),
    }
    return {
        name: {"found": found, "needed": needed, "passed": bool(found >= needed)}
        for name, (found, needed) in wanted.items()
    }


def _parts(run: Run) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return run.scores.scores, run.scores.labels, run.scores.conditions
