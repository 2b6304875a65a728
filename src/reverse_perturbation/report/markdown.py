"""Markdown tables."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd


def markdown(rows: Sequence[Mapping[str, Any]] | pd.DataFrame, decimals: int = 3) -> str:
    """Lay out rows as a Markdown table; numbers get ``decimals`` places and stand to the right."""
    frame = pd.DataFrame(rows)
    numeric = [pd.api.types.is_float_dtype(frame[column]) for column in frame]
    head = "| " + " | ".join(map(str, frame.columns)) + " |"
    rule = "|" + "|".join("---:" if right else "---" for right in numeric) + "|"
    body = ["| " + " | ".join(_cell(value, decimals) for value in row) + " |" for row in frame.itertuples(index=False)]
    return "\n".join([head, rule, *body])


def _cell(value: Any, decimals: int) -> str:
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return "-"
    return f"{value:.{decimals}f}" if isinstance(value, float) else str(value)
