"""The foundation model, alone and in fusion, against the baselines: gaps, intervals and the specification's targets."""

import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reverse_perturbation.comparison.headline import METRIC, headline
from reverse_perturbation.comparison.significance import Differences, bootstrap, over_seeds
from reverse_perturbation.errors import InputError
from reverse_perturbation.metrics import registry
from reverse_perturbation.retrieval.evaluate import Scores
from reverse_perturbation.runs import REFERENCE_BASELINE, Run, gap_prefix
from reverse_perturbation.sections import Compare, Targets
from reverse_perturbation.storage import read_json

# Provenance that must agree between the metrics files of compared models.
SHARED = (
    "source",
    "data",
    "data_sha256",
    "split_sha256",
    "genes",
    "mask",
    "targets",
    "measured_targets",
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
COMPARED = registry.shown_in("comparison")
TESTED = registry.shown_in("tested")


@dataclass(frozen=True)
class Result:
    """One metrics file and the scores it was computed from."""

    run: Run
    metrics: Mapping[str, Any]
    scores: Scores

    @classmethod
    def load(cls, run: Run, metrics: str | Path, scores: str | Path) -> "Result":
        """Read a run's files from the folders of metrics and of scores.

        Raises
        ------
        InputError
            If one of them is missing or broken.
        """
        path = run.metrics(metrics)
        try:
            content = read_json(path)
        except FileNotFoundError:
            raise InputError(f"{path}: no such file; run `dvc repro` to make it") from None
        except ValueError as error:
            raise InputError(f"{path}: not a metrics file ({error}); run `dvc repro` again") from None
        path = run.scores(scores)
        try:
            return cls(run, content, Scores.load(path))
        except zlib.error as error:
            raise InputError(f"{path}: damaged ({error}); run `dvc repro` again") from None


def check_aligned(results: list[Result]) -> None:
    """Make sure that all results are of the same queries, data and code.

    Raises
    ------
    InputError
        Naming the first provenance field that differs, and where.
    """
    first = results[0]
    for result in results[1:]:
        names = f"{result.run.name} and {first.run.name}"
        for field in SHARED:
            a, b = (each.metrics["provenance"].get(field) for each in (first, result))
            if a != b:
                raise InputError(
                    f"{names} cannot be compared: provenance.{field} is {b!r} in one and {a!r} in the other; run "
                    "`dvc repro`"
                )
        for part in ("queries", "labels"):
            if list(getattr(first.scores, part)) != list(getattr(result.scores, part)):
                raise InputError(f"{names} have different {part}; run `dvc repro`")
        if set(first.scores.conditions) != set(result.scores.conditions):
            raise InputError(f"{names} rank different conditions; run `dvc repro`")


def compare(
    trained: Mapping[str, list[Result]], baselines: Mapping[str, Result], config: Compare, targets: Targets
) -> dict[str, Any]:
    """Compare the models that have training seeds with the baselines.

    Parameters
    ----------
    trained
        For the foundation model, which comes first, and for fusion one result a training seed, in the same order; for
        the ensemble of each one result.
    baselines
        Must hold ``logreg``; others are listed beside it, their stack too. The strongest of them has the highest mrr of
        known cells held out in cross-validation: no query cell has a part in the choice.
    config
        Of the paired bootstrap.
    targets
        The specification's success criteria, of the foundation model alone.

    Returns
    -------
    dict
        A row a model (metrics; with at least two seeds their mean over seeds, ``std`` and ``seeds``: mean, std, and the
        95 % interval of the mean, ``low`` and ``high``, of the tested metrics); ``gap`` (foundation model minus
        logreg), ``interval`` (95 %, of the gap over paired queries), ``ratio`` (None where logreg has 0), ``gaps`` (to
        every baseline, for each tested metric: ``mean``, ``low`` and ``high`` over queries, and with at least two seeds
        ``over_seeds``: mean, std, low and high, and ``with_seeds``: low and high of resampled seeds and queries); the
        same of any other model, as ``fusion_gap``, ``fusion_interval``, ``fusion_ratio`` and ``fusion_gaps``;
        ``tests``, what ``headline`` returns; ``strongest`` (``baseline``, its name, and ``held_out``, for every
        baseline with class probabilities its figures and the number of configurations tried); ``targets``;
        ``provenance``.

    Raises
    ------
    InputError
        If there is no logreg, a training seed comes twice or not for every model, or the results are not of the same
        queries, data and code.
    """
    if REFERENCE_BASELINE not in baselines:
        raise InputError(f"{REFERENCE_BASELINE} is not among the baselines ({', '.join(baselines)}); add it")
    encoder = next(iter(trained))
    seeds = {
        name: [result.metrics["provenance"]["training_seed"] for result in results]
        for name, results in trained.items()
        if results[0].run.seed is not None
    }
    training_seeds = seeds[encoder]
    for name, of_model in seeds.items():
        if of_model != training_seeds:
            raise InputError(f"{name} has the training seeds {of_model}, {encoder} {training_seeds}; run `dvc repro`")
    if len(set(training_seeds)) < len(training_seeds):
        raise InputError(f"params.yaml: seeds: a training seed comes twice in {training_seeds}; list each once")
    check_aligned([result for results in (*trained.values(), baselines.values()) for result in results])
    logreg = baselines[REFERENCE_BASELINE]
    rows = {name: _over_results(results) for name, results in trained.items()}
    base = {name: float(logreg.metrics[name]) for name in COMPARED}
    gaps: dict[str, Any] = {}
    for name in trained:
        prefix = gap_prefix(name, encoder)
        gaps[f"{prefix}gap"] = {m: rows[name][m] - base[m] for m in COMPARED}
        gaps[f"{prefix}ratio"] = {m: rows[name][m] / base[m] if base[m] else None for m in COMPARED}
        gaps[f"{prefix}gaps"] = {
            baseline: {m: _against(m, trained[name], result, config) for m in TESTED}
            for baseline, result in baselines.items()
        }
        to_logreg = gaps[f"{prefix}gaps"][REFERENCE_BASELINE]
        gaps[f"{prefix}interval"] = {m: {end: to_logreg[m][end] for end in ("low", "high")} for m in TESTED}
    provenance = logreg.metrics["provenance"]
    best = strongest(baselines)
    pairs = {(model, name): baselines[name] for model in trained for name in (REFERENCE_BASELINE, best["baseline"])}
    tests = headline(
        {pair: [differences(METRIC, trained[pair[0]], other)] for pair, other in pairs.items()},
        {pair: float(other.metrics[METRIC]) for pair, other in pairs.items()},
        config,
        targets.relative_gap,
    )
    return {
        **rows,
        **{name: {m: float(result.metrics[m]) for m in COMPARED} for name, result in baselines.items()},
        **gaps,
        "strongest": best,
        "tests": tests,
        "targets": judge(rows[encoder], base, baselines[best["baseline"]].metrics, len(training_seeds), targets),
        "provenance": {
            "models": list(trained),
            "baselines": list(baselines),
            **{field: provenance[field] for field in SHARED},
            "training_seeds": training_seeds,
        },
    }


def strongest(baselines: Mapping[str, Result]) -> dict[str, Any]:
    """Return the name of the baseline with the highest mrr of cells held out, and the figures it was chosen by."""
    figures = {}
    for name, result in baselines.items():
        tried = result.metrics.get("cross_validation")  # the stack of all baselines has none
        if tried is not None and tried["held_out"] is not None:
            figures[name] = tried["held_out"] | {"configurations": tried["configurations"]}
    return {"baseline": max(figures, key=lambda name: figures[name]["mrr"]), "held_out": figures}


def judge(
    encoder: Mapping[str, float],
    logreg: Mapping[str, float],
    best: Mapping[str, float],
    seeds: int,
    targets: Targets,
) -> dict[str, Any]:
    """Compare the foundation model with the targets: found, needed and passed for each.

    The specification's, which are of logreg, and the same share of the strongest baseline's figures.
    """
    least = 1 - targets.relative_gap
    wanted = {
        "exact_hit@1": (encoder["exact_hit@1"], targets.exact_hit_at_1),
        "mrr": (encoder["mrr"], targets.mrr),
        "mrr_of_logreg": (encoder["mrr"], least * logreg["mrr"]),
        "ndcg@5_of_logreg": (encoder["ndcg@5"], least * logreg["ndcg@5"]),
        "mrr_of_strongest": (encoder["mrr"], least * best["mrr"]),
        "ndcg@5_of_strongest": (encoder["ndcg@5"], least * best["ndcg@5"]),
        "seeds": (seeds, 2),
    }
    return {
        name: {"found": found, "needed": needed, "passed": bool(found >= needed)}
        for name, (found, needed) in wanted.items()
    }


def _over_results(results: list[Result]) -> dict[str, Any]:
    values = {name: np.array([result.metrics[name] for result in results]) for name in COMPARED}
    means = {name: float(of_metric.mean()) for name, of_metric in values.items()}
    if len(results) < 2:
        return means
    std = {name: float(of_metric.std(ddof=1)) for name, of_metric in values.items()}
    return {**means, "std": std, "seeds": {name: asdict(over_seeds(values[name])) for name in TESTED}}


def _against(metric: str, results: list[Result], other: Result, config: Compare) -> dict[str, Any]:
    split = differences(metric, results, other)
    gap = bootstrap([split], **config.model_dump())
    row: dict[str, Any] = {"mean": gap.mean, "low": gap.low, "high": gap.high}
    if len(results) < 2:
        return row
    of_seeds = np.array([result.metrics[metric] - other.metrics[metric] for result in results])
    both = bootstrap([split], **config.model_dump(), seeds=True)
    return row | {"over_seeds": asdict(over_seeds(of_seeds)), "with_seeds": {"low": both.low, "high": both.high}}


def differences(metric: str, results: list[Result], other: Result) -> Differences:
    """Return a metric of each query under a model's results, one a training seed, minus that under another's result."""
    values = _per_query(metric, results) - _per_query(metric, [other])
    return Differences(values, other.scores.queries, other.scores.labels)


def _per_query(metric: str, results: list[Result]) -> np.ndarray:
    """float64 [n_results, n_queries]."""
    return np.array([registry.per_query(metric, *_parts(result)) for result in results])


def _parts(result: Result) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return result.scores.scores, result.scores.labels, result.scores.conditions
