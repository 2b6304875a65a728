"""scGPT's own vocabulary, read from the installed package without importing it, which takes seconds."""

import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path

SPECIAL_TOKENS = ("<pad>", "<cls>", "<eoc>")


@cache
def default_vocabulary() -> dict[str, int]:
    """Return the 60,697 tokens of the official checkpoints: the scgpt wheel's census genes and three special ones."""
    spec = find_spec("scgpt")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "tokenizer" / "default_census_vocab.json"
    tokens: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))
    return tokens | {token: len(tokens) + i for i, token in enumerate(SPECIAL_TOKENS)}
