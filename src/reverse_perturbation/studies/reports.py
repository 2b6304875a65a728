"""Reports of presets: results of their rows, what made them, and whether they are current."""

import argparse
import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from dvc.api import DVCFileSystem

from reverse_perturbation.comparison.compare import Result
from reverse_perturbation.comparison.verdict import missed_targets
from reverse_perturbation.config import Params
from reverse_perturbation.errors import InputError
from reverse_perturbation.metrics.registry import shown_in
from reverse_perturbation.report.markdown import markdown
from reverse_perturbation.report.report import about_the_models
from reverse_perturbation.report.tables import gaps_table, targets_table
from reverse_perturbation.retrieval.evaluate import Scores
from reverse_perturbation.runs import REFERENCE_BASELINE, Run, all_runs, gap_prefix
from reverse_perturbation.storage import read_json, sha256, write_text
from reverse_perturbation.studies.presets import (
    PATHS,
    Preset,
    Row,
    get,
    load_preset,
    preset_names,
    preset_sha256,
    resolve,
)

FOLDER = Path("results/reports")
OVERVIEW = "screens"  # of all real screens
PACKAGE = "src/reverse_perturbation"
# Code that decides no result; what `fetch` downloads is known by its hash.
PRESENTATION = ("report/", "studies/", "prepare/fetch.py", "prepare/norman_perturbench.py", "cli.py", "__main__.py")
DIGITS = 6  # of a float in the JSON
WIDTH = 220  # of an object in the JSON that stands on one line


@dataclass(frozen=True)
class MadeRow:
    """A row that was made: its parameters and the files of its experiment."""

    params: Params
    files: DVCFileSystem

    @property
    def comparison(self) -> dict[str, Any]:
        """Content of metrics/comparison.json."""
        return self.metrics("comparison")

    def metrics(self, name: str) -> dict[str, Any]:
        """Return a file of metrics/."""
        content: dict[str, Any] = json.loads(self.files.read_text(f"metrics/{name}.json"))
        return content

    def of_all_runs(self) -> list[dict[str, Any]]:
        """Return the metrics file of each model and seed."""
        return [self.metrics(f"{run.group}/{run.name}") for runs in all_runs(self.params).values() for run in runs]

    def results(self) -> dict[str, list[Result]]:
        """Return the metrics and scores of each model, one entry a training seed."""
        return {
            model: [Result(run, self.metrics(f"{run.group}/{run.name}"), self.scores(run)) for run in runs]
            for model, runs in all_runs(self.params).items()
        }

    def scores(self, run: Run) -> Scores:
        """Return the scores of a run.

        Raises
        ------
        InputError
            If DVC's cache has them no more.
        """
        path = run.scores("data/scores").as_posix()
        with tempfile.TemporaryDirectory() as folder:
            try:
                self.files.get_file(path, f"{folder}/scores.npz")
            except FileNotFoundError:
                raise InputError(f"{path}: no longer in DVC's cache; run the rows again with --force") from None
            return Scores.load(f"{folder}/scores.npz")


def git(*arguments: str) -> str:
    """Run git and return what it prints, stripped.

    Raises
    ------
    InputError
        If git fails.
    """
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"git {' '.join(arguments)}: {done.stderr.strip() or 'failed'}")
    return done.stdout.strip()


def provenance(preset: Preset, rows: Mapping[str, Row]) -> dict[str, Any]:
    """Return what a report of these rows was made of: settings, data, code, seeds, date."""
    first = next(iter(rows.values())).params
    files = sorted({Path(row.params.data.path) for row in rows.values()})
    return {
        "preset": preset.name,
        "preset_sha256": preset_sha256(rows),
        "data_sha256": {path.name: sha256(path) for path in files},
        "code": git("rev-parse", f"HEAD:{PACKAGE}"),
        "models": first.models,
        "baselines": first.baselines,
        "seeds": sorted({seed for row in rows.values() for seed in row.params.seeds}),
        "date": date.today().isoformat(),
    }


def summary(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of a comparison that a report keeps: means, gaps and intervals of the tested metrics."""
    about, tested = comparison["provenance"], shown_in("tested")
    slice_of = ("mask", "labels", "split_kind", "split_seed", "conditions", "queries")
    row: dict[str, Any] = {name: about[name] for name in slice_of}
    for model in [*about["models"], *about["baselines"]]:
        figures = comparison[model]
        row[model] = {metric: figures[metric] for metric in tested}
        if "seeds" in figures:
            row[model]["std"] = {metric: figures["std"][metric] for metric in tested}
            row[model]["seeds"] = len(about["training_seeds"])
    for model in about["models"]:
        prefix = gap_prefix(model, about["models"][0])
        for name in ("gap", "interval", "ratio"):
            row[f"{prefix}{name}"] = {metric: comparison[f"{prefix}{name}"][metric] for metric in tested}
        row[f"{prefix}gaps"] = {
            baseline: {metric: {key: gaps[metric][key] for key in ("mean", "low", "high")} for metric in tested}
            for baseline, gaps in comparison[f"{prefix}gaps"].items()
        }
    row["strongest"] = comparison["strongest"]["baseline"]
    return row


def rows_table(comparisons: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row a comparison: the mrr of each model, of logreg and the strongest baseline, and the first gap."""
    table = []
    for name, comparison in comparisons.items():
        about, strongest = comparison["provenance"], comparison["strongest"]["baseline"]
        interval = comparison["interval"]["mrr"]
        table.append(
            {"row": name, "queries": f"{about['queries']:,}"}
            | {model: comparison[model]["mrr"] for model in [*about["models"], REFERENCE_BASELINE]}
            | {"strongest": strongest, "its mrr": comparison[strongest]["mrr"]}
            | {f"{about['models'][0]} - {REFERENCE_BASELINE}": comparison["gap"]["mrr"]}
            | {"95 % low": interval["low"], "95 % high": interval["high"]}
        )
    return table


def gaps_of(report: Mapping[str, Any], row: str) -> list[dict[str, Any]]:
    """Return the table of gaps to the tuned logreg of one row of a report's JSON."""
    return gaps_table({**report["rows"][row], "provenance": report["provenance"]})


def targets_section(comparison: Mapping[str, Any]) -> list[str]:
    """Return the verdict on the specification's criteria, and the table of them."""
    missed = missed_targets(comparison)
    return [
        f"**Missed: {'; '.join(missed)}.**" if missed else "**Every target is met.**",
        markdown(targets_table(comparison)),
    ]


def gaps_section(models: Sequence[str], table: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the section on the gap to the tuned logreg; ``models`` are those with training seeds."""
    return [
        "## The gap to the tuned logistic regression",
        f"{about_the_models(models)} Means over the training seeds; the interval is a paired bootstrap over queries, "
        "stratified by condition.",
        markdown(table),
    ]


def made_by(report: Mapping[str, Any], overrides: Mapping[str, Any]) -> str:
    """Say in a sentence what made a report."""
    about = report["provenance"]
    given = [f"-S {key}={json.dumps(value)}" for key, value in overrides.items() if key not in PATHS]
    command = " ".join(["reverse-perturbation experiments", about["preset"], *given])
    data = ", ".join(f"`{name}` (sha256 `{digest[:12]}`)" for name, digest in about["data_sha256"].items())
    return (
        f"Made on {about['date']} by `{command}` from {data} with the code `{about['code'][:12]}`, the git tree of "
        f"{PACKAGE}."
    )


def save(report: Mapping[str, Any], parts: Sequence[str], folder: Path) -> None:
    """Write a report's figures as JSON and its page as Markdown."""
    path = folder / report["provenance"]["preset"]
    write_text(path.with_suffix(".json"), f"{compact(rounded(report))}\n")
    write_text(path.with_suffix(".md"), "\n\n".join(part.strip() for part in parts if part) + "\n")


def rounded(value: Any) -> Any:
    """Round every float in nested dicts to :data:`DIGITS` places."""
    if isinstance(value, Mapping):
        return {key: rounded(of_key) for key, of_key in value.items()}
    return round(value, DIGITS) if isinstance(value, float) else value


def compact(value: Any, indent: int = 0) -> str:
    """Lay out JSON with each object on one line where it fits."""
    line = json.dumps(value, allow_nan=False)
    if not isinstance(value, Mapping) or len(line) <= WIDTH:
        return line
    inner = " " * (indent + 2)
    members = ",\n".join(f"{inner}{json.dumps(key)}: {compact(of_key, indent + 2)}" for key, of_key in value.items())
    return f"{{\n{members}\n{' ' * indent}}}"


def outdated(preset: Preset) -> list[str]:
    """Return why a preset's report is stale, nothing if it is current."""
    path = FOLDER / f"{preset.name}.json"
    if not path.exists():
        return [f"{path} is missing"]
    about = read_json(path)["provenance"]
    if "code" not in about:
        return ["it does not say what made it"]
    reasons = []
    if changed := changed_code(about["code"]):
        reasons.append(changed)
    rows = resolve(preset)
    if about["preset_sha256"] != preset_sha256(rows):
        reasons.append(f"{preset.file} or params.yaml changed")
    for data in {Path(get(row.content, "data.path")) for row in rows.values()}:
        known = about["data_sha256"].get(data.name)
        if data.is_file() and sha256(data) != known:
            reasons.append(f"{data} is another file")
    return reasons


def changed_code(tree: str) -> str | None:
    """Say which code that decides results differs between a git tree of the package and HEAD, None without any."""
    try:
        names = git("diff-tree", "-r", "--name-only", tree, f"HEAD:{PACKAGE}").splitlines()
    except InputError:
        return f"its code {tree[:12]} is not in this repository (a shallow clone?)"
    files = [name for name in names if not name.startswith(PRESENTATION)]
    if not files:
        return None
    return f"code changed: {len(files)} file{'s' * (len(files) > 1)}, {files[0]}{' ...' * (len(files) > 1)}"


def main(argv: Sequence[str] | None = None) -> int:
    """List every report with its state."""
    parser = argparse.ArgumentParser(prog="reverse-perturbation reports", description=main.__doc__)
    parser.add_argument("--fail", action="store_true", help="exit with 1 if a report is stale")
    args = parser.parse_args(argv)
    presets = [preset for name in preset_names() if (preset := load_preset(name)).report]
    reasons = {preset.name: outdated(preset) for preset in presets}
    for name, why in reasons.items():
        print(f"{FOLDER / name}.md: " + (f"stale: {'; '.join(why)}" if why else "current"))
    return 1 if args.fail and any(reasons.values()) else 0
