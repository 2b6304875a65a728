"""The page on libraries and queries: the recommendation for single cells and pseudo-bulks, and the grid behind it."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from reverse_perturbation.comparison.grid import INTERVALS, LIBRARY, choose
from reverse_perturbation.config import Params
from reverse_perturbation.metrics.registry import heading
from reverse_perturbation.report.markdown import escaped, markdown
from reverse_perturbation.report.tables import SIMULATED

Row = Mapping[str, Any]
WORDS = (
    "A **query** is one cell, or a pseudo-bulk, the average of several cells known to have received the "
    "same perturbation. A **library** holds the vectors that represent each perturbation:",
    "- `mean`: the average of its reference cells.\n"
    "- `bootstrap`: many averages of reference cells drawn at random; the most similar one counts.\n"
    "- `raw_cell`: every reference cell; the most similar one counts.\n"
    "- `raw_cell_vote`: every reference cell; the most similar ones vote.\n"
    "- `classifier`: no library; the class probabilities of the model.",
    "Cells are compared in the model's embedding as it is (`plain`), with the average control cell as origin "
    "(`centred`), or whitened (`whitened`); by the angle between them (`cosine`) or their "
    "distance (`euclidean`). docs/protocol.md defines all of it.",
)


def library_query(rows: pd.DataFrame, params: Params) -> str:
    """Write the page as Markdown.

    Parameters
    ----------
    rows
        The grid of every model, as the stage library_query writes it.
    params
        All of params.yaml.
    """
    of_space = rows[(rows["part"] == "query") & (rows["labels"] == params.labels)]
    shown = of_space[of_space["queries"] > 0].sort_values("cells_per_query", kind="stable")
    parts = [
        "# Libraries and queries",
        SIMULATED if params.data.source == "simulated" else "",
        f"{escaped(params.data.name)} data, mask {params.mask}, {params.labels} labels, "
        f"split seed {params.split.seed}. Models with training seeds are means over {len(params.seeds)}. In brackets "
        "95 % intervals, bootstraps: single cells are resampled within their condition; pseudo-bulks of one condition "
        "share cells, so whole conditions are.",
        "## Recommendation",
        "Each model's library with the highest mrr on validation, by a fit and a library that have not seen those "
        f"cells, for single cells and for pseudo-bulks of {params.library_query.validation_cells_per_query}: most "
        "conditions have few validation cells. Confirmed once on the query cells, by the final fit; `classifier` is "
        "the model's own mrr on the same queries. Validation cannot tell a chosen library from the `others in its "
        "interval`.",
        recommended(rows, params),
        markdown(chosen_table(rows, params.labels)),
        "## What the words mean",
        *WORDS,
        "## By number of cells",
        "The chosen library on the query cells. A condition with fewer cells than a pseudo-bulk needs has no such "
        "query and is counted under `skipped`, so the rows of a model are not of the same conditions.",
        markdown(_by_cells(confirmation(rows, params.labels))),
        "## The grid",
        f"mrr of every library on the query cells, {params.labels} labels; nothing was chosen by them. The other label "
        "space, the other metrics and the validation rows are in [library_query.csv](library_query.csv). Euclidean "
        "distances do not depend on the origin, so `centred` is there by cosine alone.",
        _sizes(of_space),
        *_grids(shown),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def confirmation(rows: pd.DataFrame, labels: str) -> pd.DataFrame:
    """Return the chosen libraries' rows on the query cells in the label space the models were fitted in.

    One a model and size, ``single`` where it is one cell; ``classifier`` is the mrr of the model's own.
    """
    query = rows[(rows["part"] == "query") & (rows["labels"] == labels) & (rows["queries"] > 0)]
    classifier = (
        query[query["ranking"] == "classifier"].set_index(["model", "cells_per_query"])["mrr"].rename("classifier")
    )
    chosen = choose(rows)
    chosen = chosen.assign(single=chosen["cells_per_query"] == 1)[["model", *LIBRARY, "single"]]
    confirmed = query.assign(single=query["cells_per_query"] == 1).merge(chosen, on=list(chosen))
    return confirmed.join(classifier, on=["model", "cells_per_query"]).sort_values(
        ["model", "cells_per_query"], kind="stable"
    )


def chosen_table(rows: pd.DataFrame, labels: str) -> list[dict[str, Any]]:
    """Return one row a model and use: its library and its query metrics; pseudo-bulks of the smallest size."""
    first = confirmation(rows, labels).drop_duplicates(["model", "single"])
    confirmed = {(row["model"], row["single"]): row for row in _dicts(first)}
    table = []
    for row in _dicts(choose(rows).sort_values(["cells_per_query", "model"], kind="stable")):
        query = confirmed.get((row["model"], row["cells_per_query"] == 1))
        table.append(
            {"model": row["model"], "queries": "single cells" if row["cells_per_query"] == 1 else "pseudo-bulks"}
            | {name: row[name] for name in LIBRARY}
            | {"validation mrr": _text(row, "mrr"), "others in its interval": _others(rows, row)}
            | {"cells per query": str(query["cells_per_query"]) if query else "-"}
            | {"query mrr": _text(query, "mrr") if query else "-"}
            | {"classifier": float(query["classifier"]) if query else None}
        )
    return table


def recommended(rows: pd.DataFrame, params: Params) -> str:
    """Recommend, over all models, the library with the highest validation mrr for each use."""
    validation = rows[rows["part"] == "validation"].dropna(subset=["mrr"])
    lines = []
    sizes = {"Single-cell queries": 1, "Pseudo-bulk queries": params.library_query.validation_cells_per_query}
    for use, cells in sizes.items():
        of_use = validation[validation["cells_per_query"] == cells].sort_values("mrr", ascending=False, kind="stable")
        libraries = _dicts(of_use[of_use["ranking"] != "classifier"])
        classifiers = _dicts(of_use[of_use["ranking"] == "classifier"])
        if not libraries:
            key = "library_query.validation_cells_per_query"
            lines.append(f"- **{use}**: no condition has {cells} validation cells to choose by; lower {key}.")
            continue
        best = libraries[0]
        setting = f"library `{best['ranking']}`, embedding `{best['embedding']}`, `{best['similarity']}`"
        line = f"- **{use}: {best['model']}, {setting}**, validation mrr {best['mrr']:.3f}."
        if classifiers:
            word = "higher" if classifiers[0]["mrr"] > best["mrr"] else "not higher"
            line += f" The best classifier, {classifiers[0]['model']}'s, is {word}: {classifiers[0]['mrr']:.3f}."
        lines.append(line + _on_queries(rows, best, params.labels))
    return "\n".join(lines)


def _on_queries(rows: pd.DataFrame, best: Row, labels: str) -> str:
    """Describe the recommended library's metrics on the query cells, by cells per query."""
    confirmed = confirmation(rows, labels)
    confirmed = confirmed[
        (confirmed["model"] == best["model"]) & (confirmed["single"] == (best["cells_per_query"] == 1))
    ]
    if confirmed.empty:
        return " No condition has query cells enough to confirm it."
    if best["cells_per_query"] == 1:
        return f" On the query cells: mrr {_text(_dicts(confirmed)[0], 'mrr')}."
    by_size = ", ".join(f"{row['mrr']:.3f} for {row['cells_per_query']}" for row in _dicts(confirmed))
    rising = (
        " More cells help: average all that are available."
        if confirmed["mrr"].is_monotonic_increasing and len(confirmed) > 1
        else ""
    )
    return f" On the query cells, by cells averaged: mrr {by_size}.{rising}"


def _others(rows: pd.DataFrame, chosen: Row) -> str:
    """Count the libraries that validation cannot tell from the chosen one."""
    same = (
        (rows["model"] == chosen["model"])
        & (rows["part"] == "validation")
        & (rows["cells_per_query"] == chosen["cells_per_query"])
    )
    mrr = rows.loc[same & (rows["ranking"] != "classifier"), "mrr"]
    return f"{(mrr >= chosen['mrr_low']).sum() - 1} of {len(mrr) - 1}"


def _by_cells(confirmed: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {name: row[name] for name in ("model", "cells_per_query", "queries")}
        | {"skipped": row["skipped_conditions"]}
        | _texts(row)
        | {"classifier mrr": float(row["classifier"])}
        for row in _dicts(confirmed)
    ]


def _grids(rows: pd.DataFrame) -> list[str]:
    """Return a table for each number of cells: a row a library, a column a model."""
    parts = []
    for cells, of_size in rows.groupby("cells_per_query"):
        first = of_size.iloc[0]
        answered = f"{first['conditions'] - first['skipped_conditions']} of {first['conditions']} conditions"
        what = "One cell" if cells == 1 else f"Pseudo-bulks of {cells} cells"
        parts.append(f"### {what}: {answered}, {first['queries']} queries")
        texts = of_size.assign(text=[_text(row, "mrr") for row in _dicts(of_size)])
        wide = texts.pivot_table(index=LIBRARY, columns="model", values="text", aggfunc="first", sort=False)
        parts.append(markdown(wide.reset_index().fillna("-")))
    return parts


def _sizes(rows: pd.DataFrame) -> str:
    """Say which sizes leave conditions out."""
    sizes = _dicts(rows.drop_duplicates("cells_per_query").sort_values("cells_per_query"))
    short = [
        f"{row['skipped_conditions']} have fewer than {row['cells_per_query']}"
        for row in sizes
        if row["cells_per_query"] > 1
    ]
    return f"Of {sizes[0]['conditions']} conditions, by query cells: {', '.join(short)}; those have no such query."


def _texts(row: Row) -> dict[str, str]:
    return {heading(name): _text(row, name) for name in INTERVALS}


def _text(row: Row, name: str) -> str:
    """Write a metric with its interval, where it has one."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return f"{row[name]:.3f}" if pd.isna(low) else f"{row[name]:.3f} ({low:.3f} to {high:.3f})"


def _dicts(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in rows.to_dict("records")]
