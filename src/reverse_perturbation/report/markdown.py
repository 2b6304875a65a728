"""Markdown tables, and texts of the data in Markdown."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd


def escaped(text: str) -> str:
    """Write a text of the data, such as a label or a file's name, so that Markdown and HTML show it as it is."""
    shown = " ".join(text.replace("&", "&amp;").split())
    return _without_html(re.sub(r"([\\\\`*|\[\]])", r"\\\1", shown))


def markdown(rows: Sequence[Mapping[str, Any]] | pd.DataFrame, decimals: int = 3) -> str:
    """Lay out rows as a Markdown table; numbers get ``decimals`` places and stand to the right.

    A text may hold Markdown of its own, but no HTML and no end of a cell: texts of the data come :func:`escaped`.
    """
    frame = pd.DataFrame(rows)
    numeric = [pd.api.types.is_float_dtype(frame[column]) for column in frame]
    head = "| " + " | ".join(_text(column) for column in frame.columns) + " |"
    rule = "|" + "|".join("---:" if right else "---" for right in numeric) + "|"
    body = ["| " + " | ".join(_cell(value, decimals) for value in row) + " |" for row in frame.itertuples(index=False)]
    return "\n".join([head, rule, *body])


def _cell(value: Any, decimals: int) -> str:
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return "-"
    return f"{value:.{decimals}f}" if isinstance(value, float) else _text(value)


def _text(value: Any) -> str:
    """Write a text that ends no cell: pipes that are not escaped, and line ends."""
    return _without_html(re.sub(r"(?<!\\)\|", r"\\|", re.sub(r"[\r\n]+", " ", str(value))))


def _without_html(text: str) -> str:
    return text.replace("<", "&lt;").replace(">", "&gt;")
