"""The report: the verdict first, then every row behind it, those that lose included."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from reverse_perturbation.check import MEANING
from reverse_perturbation.report.analysis import Tables, ceilings_section, confidence_section, errors_section
from reverse_perturbation.report.library_query import chosen_table
from reverse_perturbation.report.tables import SIMULATED, gaps_table, markdown, models_table, slice_of, targets_table
from reverse_perturbation.retrieval.compare import TRAINED

WHAT_THE_BASELINES_ARE = (
    "`logreg` is tuned on the validation cells, `logreg_prior` has the earlier project's settings, `logreg_library` is "
    "tuned and given the cell's library size beside expression: scGPT can tell it from its tokens, `logreg` cannot."
)
WHAT_FUSION_IS = (
    "`scgpt` answers from its tokens alone. `fusion` is the same scGPT beside the tuned logistic regression, from "
    "whose scores its training sets out."
)
PSEUDOBULK = (
    "The queries are pseudo-bulks, and draws of one condition may share cells: they are not independent, so the\n"
    "interval is narrower than it should be. {skipped} conditions have too few query cells and are not asked about."
)
SPREAD = {"mean": "mean", "std": "std", "low": "95 % low", "high": "95 % high"}
PLOTS = {
    "hit_at_k.png": "Share of queries whose condition (left), or one that shares a gene with it (right), is among the "
    "first k.",
    "coverage.png": "Accuracy when only the most confident answers are given; confidence is the margin of the first "
    "score over the second.",
    "confusion.png": "What each condition's queries are answered with.",
    "training.png": "Fine-tuning, the selection fit of each model and seed; fusion's epoch 0 is logistic regression.",
}


def report(
    comparison: Mapping[str, Any],
    runs: Mapping[str, Mapping[str, Any]],
    grid: pd.DataFrame,
    analysis: Tables,
    similar: float,
    plots: str,
) -> str:
    """Write the report as Markdown.

    Parameters
    ----------
    comparison
        Of the stage compare.
    runs
        Name of each metrics file -> its content.
    grid
        Of the stage library_query: every library and query of every model.
    analysis
        Of the stage analysis.
    similar
        From which cosine on profiles were called similar.
    plots
        Relative path of the folder with the pictures.
    """
    about = comparison["provenance"]
    missed = [name for name, target in comparison["targets"].items() if not target["passed"]]
    verdict = (
        "every target is met" if not missed else f"{len(missed)} of {len(comparison['targets'])} targets are missed"
    )
    parts = [
        "# scGPT against logistic regression",
        SIMULATED if about["source"] == "simulated" else "",
        f"Measured on: {slice_of(about)}; training seeds {', '.join(map(str, about['training_seeds']))}. "
        f"**Verdict: {verdict}.**",
        "## The specification's success criteria",
        markdown(targets_table(comparison["targets"], MEANING)),
        "## The gap to the tuned logistic regression",
        f"{WHAT_FUSION_IS} Both are means over their training seeds; the interval is a paired bootstrap over queries, "
        "stratified by condition; how the seeds differ is not in it and stands below.",
        PSEUDOBULK.format(skipped=_skipped(runs)) if about["query"] == "pseudobulk" else "",
        markdown(gaps_table(comparison)),
        *_over_seeds(comparison),
        *_other_gaps(comparison),
        *ceilings_section(analysis, plots),
        *errors_section(analysis, plots, similar),
        *confidence_section(analysis, plots),
        "## Every model and seed",
        "`ranking` says what orders the conditions: a classifier's probabilities, or similarity to a library. "
        f"{WHAT_THE_BASELINES_ARE} "
        "Validation figures come from fits that have not seen those cells.",
        markdown(models_table(runs)),
        markdown(_validation_rows(runs)),
        "## Pictures",
        *[f"![{caption}]({plots}/{name})\n\n{caption}" for name, caption in PLOTS.items()],
        "## Libraries and queries",
        "The library each model does best with on validation, and what it reaches on the query cells, with 95 % "
        "intervals; `classifier` is the model's own on the same queries. Every library, similarity, embedding and "
        "query: [library_query.md](library_query.md).",
        markdown(chosen_table(grid, about["labels"])),
        "## Provenance",
        markdown([{"field": name, "value": str(value)} for name, value in about.items()]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _skipped(runs: Mapping[str, Mapping[str, Any]]) -> int:
    """Return how many conditions have no query; the same in all runs, which share queries and conditions."""
    count: int = next(iter(runs.values()))["provenance"]["skipped_conditions"]
    return count


def _over_seeds(comparison: Mapping[str, Any]) -> list[str]:
    if "seeds" not in comparison["scgpt"]:
        return ["scGPT was trained with one seed: how much its figures hang on it is not known."]
    count = len(comparison["provenance"]["training_seeds"])
    return [
        f"Over the {count} training seeds, with the 95 % interval of the mean (Student's t, wide for few seeds):",
        markdown(
            [
                {"model": model, "metric": name} | {shown: of[key] for key, shown in SPREAD.items()}
                for model in TRAINED
                if model in comparison
                for name, of in comparison[model]["seeds"].items()
            ]
        ),
    ]


def _other_gaps(comparison: Mapping[str, Any]) -> list[str]:
    rows = [
        {"model": model, "minus": baseline, "metric": name, "gap": gap["mean"], "95 % low": gap["low"]}
        | {"95 % high": gap["high"]}
        | {f"{end}, seeds too": gap["with_seeds"][end] if "with_seeds" in gap else None for end in ("low", "high")}
        for model, prefix in TRAINED.items()
        if model in comparison
        for baseline, gaps in comparison[f"{prefix}gaps"].items()
        for name, gap in gaps.items()
        if name == "mrr" or baseline == "logreg"
    ]
    return [
        "The gap to every baseline, in mrr; the last two columns are the interval where training seeds are drawn again "
        "as well as queries, which with few seeds is still too narrow:",
        markdown(rows),
    ]


def _validation_rows(runs: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "model": name.rsplit("-", 1)[0],
            "training seed": str(
                run["provenance"]["training_seed"] if run["provenance"]["training_seed"] is not None else "-"
            ),
            "validation exact_hit@1": run["validation"]["exact_hit@1"],
            "query exact_hit@1": run["exact_hit@1"],
            "validation mrr": run["validation"]["mrr"],
            "query mrr": run["mrr"],
        }
        for name, run in runs.items()
    ]
