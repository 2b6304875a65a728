"""Sections of the report on errors, confidence and ceilings, from the tables of the stage analysis."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from reverse_perturbation.analysis.cells_per_query import BOUND
from reverse_perturbation.errors import InputError
from reverse_perturbation.report import plots
from reverse_perturbation.report.markdown import escaped, markdown
from reverse_perturbation.runs import REFERENCE_BASELINE, title

# The columns that identify a row within a run.
KEYS: dict[str, list[str]] = {
    "confidence": ["measure"],
    "calibration": ["ranking"],
    "reliability": ["when", "bin"],
    "conditions": ["condition"],
    "groups": ["group"],
    "confusions": ["class"],
    "cells_per_query": ["ranking", "condition", "cells_per_query"],
}
TABLES = (*KEYS, "facts", "split_half")
HARDEST = 10


@dataclass(frozen=True)
class Tables:
    """The tables of the stage analysis; rows of models are averaged over training seeds.

    Attributes
    ----------
    confidence, calibration, reliability, conditions, groups, confusions, cells_per_query
        Columns as analysis/calibration.py, analysis/errors.py and analysis/cells_per_query.py give them, and ``model``.
    facts, split_half
        Of the conditions, whichever the model.
    metrics
        Content of metrics/analysis.json.
    models
        Those in the plots and tables that show some models only, the foundation model first.
    """

    confidence: pd.DataFrame
    calibration: pd.DataFrame
    reliability: pd.DataFrame
    conditions: pd.DataFrame
    groups: pd.DataFrame
    confusions: pd.DataFrame
    cells_per_query: pd.DataFrame
    facts: pd.DataFrame
    split_half: pd.DataFrame
    metrics: Mapping[str, Any]
    models: Sequence[str]

    @classmethod
    def load(cls, folder: str | Path, metrics: Mapping[str, Any], models: Sequence[str]) -> "Tables":
        """Read the tables.

        Raises
        ------
        InputError
            If one is missing.
        """
        tables = {}
        for name in TABLES:
            path = Path(folder) / f"{name}.csv"
            if not path.exists():
                raise InputError(f"{path}: no such file; run `dvc repro analysis` to make it")
            table = pd.read_csv(path, dtype={"cells_per_query": str}, keep_default_na=False, na_values=[""])
            tables[name] = _over_seeds(table, KEYS[name]) if "model" in table else table
        return cls(**tables, metrics=metrics, models=models)


def _over_seeds(table: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Average over the runs of a model; text, such as the most frequent mistake, is that of the first seed."""
    rest = [column for column in table if column not in {"model", "seed", *keys}]
    how = {column: "mean" if pd.api.types.is_numeric_dtype(table[column]) else "first" for column in rest}
    return table.groupby(["model", *keys], sort=False).agg(how).reset_index()


def draw(tables: Tables, chance: float, folder: Path, heading: str) -> None:
    """Draw reliability, classes of errors, hits over effects, and the split-half ceiling."""
    of_models = tables.reliability[tables.reliability["model"].isin(tables.models)]
    plots.reliability(of_models, folder / "reliability.png", heading)
    plots.error_classes(tables.confusions[tables.confusions["chance"] > 0], folder / "errors.png", heading)
    rows = tables.conditions.merge(tables.facts, on="condition")
    plots.by_effect(rows[rows["model"].isin(tables.models)], folder / "by_effect.png", heading)
    plots.reach(tables.split_half, reached(tables), chance, tables.models, folder / "reach.png", heading)


def ceilings_section(tables: Tables, pictures: str) -> list[str]:
    """Return the section on ceilings."""
    cap = tables.metrics["twin_cap_of_legacy_labels"]
    overall = [
        {"cells averaged": name} | {key: row[key] for key in ("exact_hit@1", "mrr")} | {"conditions": row["conditions"]}
        for name, row in tables.metrics["split_half"].items()
    ]
    bound = tables.metrics.get("simulator_bound")
    half = tables.split_half[tables.split_half["cells_per_query"] == "half"]
    weak = half[half["exact_hit@1"] < 0.5].sort_values("exact_hit@1")["condition"]
    return [
        "## What could be reached",
        f"**Twins.** With legacy labels, a model that always knows the perturbation but cannot tell `A+ctrl` from "
        f"`ctrl+A` has exact_hit@1 {cap['exact_hit@1']:.3f} and mrr {cap['mrr']:.3f}. With canonical labels the cap is "
        "1.",
        "**Split half.** One half of the reference cells retrieves means of cells of the other half, by linear "
        "discriminants of the principal components; the mean over conditions (`half`: all cells of the half). It shows "
        "what replicates of this size support in this space; a model that has all reference cells or another space may "
        "exceed it (docs/protocol.md). Rows that cover different conditions cannot be compared.",
        markdown(overall),
        f"Not retrieved by half of their cells in most draws: {', '.join(map(escaped, weak)) or 'no condition'}.",
        _simulator(bound) if bound else "",
        *_beside(tables),
        _picture(
            pictures,
            "reach.png",
            "exact_hit@1 over the number of cells averaged. Left: split half, a line a condition. Right: models "
            "beside it, over the conditions that have enough query cells.",
        ),
    ]


def reached(tables: Tables) -> pd.DataFrame:
    """Compare the models with the ceilings at each number of cells, over the same conditions.

    Returns
    -------
    pandas.DataFrame
        One row a number of cells that some condition has query cells for: ``cells_per_query`` (int), ``conditions``,
        and exact_hit@1, the mean over these conditions: ``split half`` (of groups of reference cells), the bound of the
        simulator where there is one, and each model's, by its ranking in the headline and by the other it has,
        classifier or library.
    """
    headline = tables.calibration.set_index("model")["ranking"]
    of_models = tables.cells_per_query[tables.cells_per_query["model"].isin([*tables.models, BOUND])].assign(
        series=lambda rows: [
            model
            if model == BOUND or ranking == headline[model]
            else f"{model}, {ranking if ranking == 'classifier' else 'library'}"
            for model, ranking in zip(rows["model"], rows["ranking"], strict=True)
        ]
    )
    table_by_condition = of_models.pivot_table(
        index=["cells_per_query", "condition"], columns="series", values="exact_hit@1", sort=False
    )
    half = tables.split_half.set_index(["cells_per_query", "condition"])["exact_hit@1"].reindex(
        table_by_condition.index
    )
    table_by_condition.insert(0, "split half", half)
    by_size = table_by_condition.groupby("cells_per_query", sort=False)
    table = by_size.mean().assign(conditions=by_size.size()).reset_index()
    table["cells_per_query"] = table["cells_per_query"].astype(int)
    ceilings = [name for name in ("split half", BOUND) if name in table_by_condition]
    return table[["cells_per_query", "conditions", *ceilings, *table_by_condition.columns.drop(ceilings)]].sort_values(
        "cells_per_query"
    )


def _simulator(bound: Mapping[str, float]) -> str:
    """Describe the bound of the simulator's own parameters."""
    return (
        "**Simulator only.** Bayes' rule with everything the simulated counts were drawn from, and with each query "
        "cell's gem group, depth and phase of the cell cycle, has "
        f"{', '.join(f'{name} {value:.3f}' for name, value in bound.items())} on the queries of the headline. No model "
        "is expected to do better; a model must learn from cells what the rule is given (docs/protocol.md). For real "
        "cells no such bound is known."
    )


def _beside(tables: Tables) -> list[str]:
    """Return the table of how much of the ceilings each model reaches."""
    rows = reached(tables).rename(columns={"cells_per_query": "cells averaged"})
    ceiling = BOUND if BOUND in rows else "split half"
    models = rows.columns.drop(["cells averaged", "conditions", "split half", BOUND], errors="ignore")
    shares = rows[["cells averaged", "conditions", *models]].copy()
    shares[models] = rows[models].div(rows[ceiling], axis=0)
    return [
        "exact_hit@1 of the models at the same number of cells, averaged over the conditions with enough query cells; "
        "rows that cover different conditions cannot be compared. Each model stands with its ranking in the headline, "
        "and with its other one, classifier or library.",
        markdown(rows),
        f"The same as a share of `{ceiling}`."
        + ("" if ceiling == BOUND else " Above 1 a model exceeds it: there it is a yardstick, not a ceiling."),
        markdown(shares),
    ]


def errors_section(tables: Tables, pictures: str, similar: float) -> list[str]:
    """Return the section on errors."""
    logreg = tables.conditions[tables.conditions["model"] == REFERENCE_BASELINE].merge(tables.facts, on="condition")
    encoder = tables.models[0]
    of_encoder = tables.conditions[tables.conditions["model"] == encoder]
    hardest = of_encoder.merge(tables.facts, on="condition").sort_values(["exact_hit@1", "mrr"]).head(HARDEST)
    shown = ["condition", "reference_cells", "e_distance", "queries", "exact_hit@1", "exact_hit@5", "graded_ndcg@5"]
    reached = tables.split_half[tables.split_half["cells_per_query"] == "half"].set_index("condition")["exact_hit@1"]
    return [
        "## Errors",
        "Relation of the first-ranked condition to the truth, the first class that holds; profiles are similar where "
        f"the cosine of their differences from the mean condition is {similar} or more (docs/protocol.md). `chance` is "
        "of random predictions; `enrichment`: how much more often than among random wrong predictions.",
        markdown(_classes(tables.confusions, encoder)),
        _picture(pictures, "errors.png", "Relation of the first-ranked condition to the truth."),
        "Every condition with its most frequent mistake and graded hits: `results/analysis/conditions.csv`.",
        "By group, each condition counting the same; effects (E-distance to control) and cells are divided at the "
        "median.",
        markdown(_by_group(tables.groups, tables.models)),
        _picture(pictures, "by_effect.png", "Each condition's exact_hit@1; the size of a dot is its reference cells."),
        f"The {len(hardest)} conditions {title(encoder)} finds least often; the most frequent mistake is that of its "
        "first seed, `split half` that of all cells of a half:",
        markdown(
            hardest[shown].assign(
                condition=hardest["condition"].map(escaped),
                queries=hardest["queries"].astype(int),
                **{
                    "logreg's": hardest["condition"].map(logreg.set_index("condition")["exact_hit@1"]),
                    "split half": hardest["condition"].map(reached),
                    "mistaken for": hardest["mistaken_for"].map(escaped, na_action="ignore"),
                    "which is": hardest["mistaken_class"],
                },
            )
        ),
    ]


def confidence_section(tables: Tables, pictures: str) -> list[str]:
    """Return the section on confidence."""
    return [
        "## Confidence",
        "The temperature is fitted on single validation cells, by the fit that has not seen them; `ece` is the "
        "calibration error of the first-ranked condition, `ece_if_calibrated` the error expected of this many queries "
        "when every probability is right, `nll` the cross-entropy in nats.",
        markdown(_calibration(tables.calibration)),
        "Queries in the order of confidence: the margin, the entropy after temperature scaling and, for a "
        "model with an embedding, the share of single prototypes that agree with its prediction. `confidence_auc` is "
        "at most 0.95; `aurc` is an error, lower is better; `confidence_roc_auc` is 0.5 for uninformative confidence:",
        markdown(tables.confidence),
        _picture(pictures, "reliability.png", "Reliability: the size of a dot is the share of the queries."),
    ]


def _classes(rows: pd.DataFrame, encoder: str) -> pd.DataFrame:
    shares = rows.pivot_table(index="class", columns="model", values="share", sort=False)
    chance = rows.groupby("class", sort=False)["chance"].first()
    enrichment = rows[rows["model"] == encoder].set_index("class")["enrichment"]
    table = shares.assign(chance=chance, **{f"enrichment ({encoder})": enrichment})
    return table[table["chance"] > 0].reset_index()


def _by_group(rows: pd.DataFrame, models: Sequence[str]) -> pd.DataFrame:
    of_models = rows[rows["model"].isin(models)]
    tables = [
        of_models.pivot_table(index="group", columns="model", values=metric, sort=False).add_prefix(f"{metric} ")
        for metric in ("exact_hit@1", "graded_ndcg@5")
    ]
    counts = of_models.groupby("group", sort=False)["conditions"].first().astype(int)
    return pd.concat([counts, *tables], axis=1).reset_index()


def _calibration(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[
        ["model", "ranking", "temperature", "ece_before", "ece_after", "ece_if_calibrated", "nll_before", "nll_after"]
    ]


def _picture(pictures: str, name: str, caption: str) -> str:
    return f"![{caption}]({pictures}/{name})\n\n{caption}"
