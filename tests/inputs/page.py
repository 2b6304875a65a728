"""What happens to each input, as a page: `python -m tests.inputs.page` writes docs/inputs.md."""

import contextlib
import io
import re
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

from reverse_perturbation.data.screen.masked_screen import load_masked_screen
from reverse_perturbation.errors import InputError
from reverse_perturbation.stages import prepare, split, vocab_map
from tests.end_to_end.pipeline import ROOT, params, yaml
from tests.inputs.cases import CASES, LATER, SETTINGS, Make

PAGE = ROOT / "docs" / "inputs.md"
HEAD = """# What happens to an input

Every line below is what the stage `prepare` prints for a small file of that kind; the files are made by
[tests/inputs/cases.py](../tests/inputs/cases.py). The last table goes on to `vocab_map`, `split` and the masked counts
that every model reads first. An error ends the stage with exit code 2, and nothing is written. What a file must hold is
said in [norman.md](norman.md#your-own-screen). `python -m tests.inputs.page` writes this page, and a test compares it
with what happens.
"""
# What depends on the machine or a version.
VARYING = {
    r"sha256 of ([\w.]+): [0-9a-f]{64}": r"sha256 of \1: ...",
    r"its sha256 is [0-9a-f]{64}": "its sha256 is ...",
    r"cut short \(.*\);": "cut short (...);",
    r"by anndata \S+ \(encoding (\S+ \S+): .*\);": r"by anndata ... (encoding \1: ...);",
}


@dataclass(frozen=True)
class Outcome:
    """What was printed and whether cells were written."""

    code: int
    lines: list[str]
    written: bool


def try_input(folder: Path, make: Make, name: str, later: bool = False) -> Outcome:
    """Run prepare, and on request vocab_map and split, on an input."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = make(folder / "mine.h5ad")
    with (folder / "params.yaml").open("w") as file:
        content = params(data={"source": "h5ad", "path": str(path)})
        content["data"] |= SETTINGS.get(name, {})
        yaml.dump(content, file)
    printed, code = io.StringIO(), 0
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            _run(folder, later)
        except SystemExit as error:
            code = int(error.code or 0)
    lines = printed.getvalue().replace(f"{folder}/", "").splitlines()
    for pattern, text in VARYING.items():
        lines = [re.sub(pattern, text, line) for line in lines]
    return Outcome(code, lines, (folder / "cells.h5ad").exists())


def _run(folder: Path, later: bool) -> None:
    settings, cells = ["--params", str(folder / "params.yaml")], str(folder / "cells.h5ad")
    prepare.main([*settings, "--output", cells])
    if later:
        for stage in (vocab_map, split):
            out = [str(folder / f"{stage.__name__}.{kind}") for kind in ("csv", "json")]
            stage.main([*settings, "--cells", cells, "--output", out[0], "--metrics", out[1]])
        tables = [folder / f"{stage.__name__}.csv" for stage in (split, vocab_map)]
        try:
            load_masked_screen(cells, *tables, mask="all_targets", genes="all")
        except InputError as error:
            print(f"error: {error}")
            raise SystemExit(2) from None


def row(name: str, outcome: Outcome) -> str:
    """Write a row of the table: all that was printed."""
    line = "<br>".join(outcome.lines).replace("|", "\\|")
    return f"| {name} | {line} |"


def page() -> str:
    """Try all inputs and write the page."""
    parts = [HEAD]
    for group, cases in CASES.items():
        parts.append(f"## {group}\n\n| input | line |\n|---|---|")
        for name, make in cases.items():
            with tempfile.TemporaryDirectory() as folder:
                parts.append(row(name, try_input(Path(folder), make, name, group == LATER)))
        parts.append("")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page())
