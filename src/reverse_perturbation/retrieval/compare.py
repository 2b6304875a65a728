"""scGPT, alone and in fusion, against logistic regression: the gap, its interval, and the specification's targets."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reverse_perturbation.config import Compare, Targets
from reverse_perturbation.errors import InputError
from reverse_perturbation.retrieval import metrics
from reverse_perturbation.retrieval.evaluate import Scores
from reverse_perturbation.retrieval.significance import over_seeds, paired_bootstrap, paired_bootstrap_with_seeds
from reverse_perturbation.storage import read_json

# What must be the same in the metrics files of models that are compared.
SHARED = (
    "source",
    "data_sha256",
    "split_sha256",
    "genes",
    "mask",
    "labels",
    "split_kind",
    "split_seed",
    "screen_sha256",
    "evaluator_sha256",
    "query",
    "query_draws",
    "library",
    "queries",
    "conditions",
)
COMPARED = ("exact_hit@1", "exact_hit@5", "relevant_hit@1", "macro_hit@1", "mrr", "ndcg@5", "confidence_auc")
TESTED = ("exact_hit@1", "mrr", "ndcg@5")
# The models that have training seeds, and what stands before the names of their gap, ratio and interval.
TRAINED = {"scgpt": "", "fusion": "fusion_"}


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


def compare(
    trained: Mapping[str, list[Run]], baselines: Mapping[str, Run], config: Compare, targets: Targets
) -> dict[str, Any]:
    """Set the models that have training seeds against the baselines.

    Parameters
    ----------
    trained
        For scGPT, and whichever else of :data:`TRAINED` there is, one run a training seed, the same seeds in the same
        order.
    baselines
        Must hold ``logreg``; others are listed beside it.
    config
        Of the paired bootstrap.
    targets
        The specification's success criteria, of scGPT alone.

    Returns
    -------
    dict
        ``scgpt``, ``fusion`` if given, and each baseline (metrics; for the first two the mean over seeds, ``std``, and
        with at least two seeds ``seeds``: mean, std, and the 95 % interval of the mean, ``low`` and ``high``, of the
        tested metrics), ``gap`` (scGPT minus logreg), ``interval`` (95 %, of the gap over paired queries), ``ratio``
        (None where logreg has 0), ``gaps`` (to every baseline, for each tested metric: ``mean``, ``low`` and ``high``
        over queries, and with at least two seeds ``over_seeds``: mean, std, low and high, and ``with_seeds``: low and
        high where seeds and queries are drawn again), the same of fusion as ``fusion_gap``, ``fusion_interval``,
        ``fusion_ratio`` and ``fusion_gaps``, ``targets``, ``provenance``.

    Raises
    ------
    InputError
        If there is no logreg, a training seed comes twice or not for every model, or the runs did not answer the
        same question.
    """
    if "logreg" not in baselines:
        raise InputError(f"logreg is not among the baselines ({', '.join(baselines)}); add it to --baselines")
    seeds = {name: [run.metrics["provenance"]["training_seed"] for run in runs] for name, runs in trained.items()}
    training_seeds = seeds["scgpt"]
    for name, found in seeds.items():
        if found != training_seeds:
            raise InputError(f"{name} has the training seeds {found}, scgpt {training_seeds}; run `dvc repro`")
    if len(set(training_seeds)) < len(training_seeds):
        raise InputError(f"params.yaml: seeds: a training seed comes twice in {training_seeds}; list each once")
    check_aligned([run for runs in (*trained.values(), baselines.values()) for run in runs])
    logreg = baselines["logreg"]
    rows = {name: _over_runs(runs) for name, runs in trained.items()}
    base = {name: float(logreg.metrics[name]) for name in COMPARED}
    gaps: dict[str, Any] = {}
    for name in trained:
        prefix = TRAINED[name]
        gaps[f"{prefix}gap"] = {m: rows[name][m] - base[m] for m in COMPARED}
        gaps[f"{prefix}ratio"] = {m: rows[name][m] / base[m] if base[m] else None for m in COMPARED}
        gaps[f"{prefix}gaps"] = {
            baseline: {m: _against(m, trained[name], run, config) for m in TESTED}
            for baseline, run in baselines.items()
        }
        to_logreg = gaps[f"{prefix}gaps"]["logreg"]
        gaps[f"{prefix}interval"] = {m: {end: to_logreg[m][end] for end in ("low", "high")} for m in TESTED}
    provenance = logreg.metrics["provenance"]
    return {
        **rows,
        **{name: {m: float(run.metrics[m]) for m in COMPARED} for name, run in baselines.items()},
        **gaps,
        "targets": judge(rows["scgpt"], base, len(training_seeds), targets),
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


def _over_runs(runs: list[Run]) -> dict[str, Any]:
    values = {name: np.array([run.metrics[name] for run in runs]) for name in COMPARED}
    several = len(runs) > 1
    return {
        **{name: float(v.mean()) for name, v in values.items()},
        "std": {name: float(v.std(ddof=1)) if several else 0.0 for name, v in values.items()},
        **({"seeds": {name: asdict(over_seeds(values[name])) for name in TESTED}} if several else {}),
    }


def _against(metric: str, runs: list[Run], other: Run, config: Compare) -> dict[str, Any]:
    ours, theirs, labels = _per_query(metric, runs), _per_query(metric, [other])[0], other.scores.labels
    found = asdict(paired_bootstrap(ours.mean(axis=0), theirs, labels, **config.model_dump()))
    if len(runs) < 2:
        return found
    gaps = np.array([run.metrics[metric] - other.metrics[metric] for run in runs])
    both = paired_bootstrap_with_seeds(ours, theirs, labels, **config.model_dump())
    return found | {"over_seeds": asdict(over_seeds(gaps)), "with_seeds": {"low": both.low, "high": both.high}}


def _per_query(metric: str, runs: list[Run]) -> np.ndarray:
    """float64 [n_runs, n_queries]."""
    return np.array([metrics.per_query(metric, *_parts(run)) for run in runs])


def _parts(run: Run) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return run.scores.scores, run.scores.labels, run.scores.conditions
