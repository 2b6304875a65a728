"""Presets: files of experiments/, each with rows of settings for params.yaml."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML, YAMLError

from reverse_perturbation.config import Params
from reverse_perturbation.errors import InputError

FOLDER = Path("experiments")
FIELDS = {
    "description": str,
    "base": str,
    "settings": dict,
    "rows": dict,
    "targets": list,
    "report": str,
    "rehearsal": dict,
}
REPORTS = (
    "screens",
    "norman_scale",
    "norman_full",
    "ablation",
    "learning_curve",
)  # modules of studies that write a report
ROW_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
PATHS = ("data.path", "scgpt.checkpoint")  # keys that name files: where these lie decides no result


@dataclass(frozen=True)
class Preset:
    """One file of experiments/, its base included.

    Attributes
    ----------
    name
        Of its experiments and its report.
    file
        Where it was read from.
    settings
        In every row: key of params.yaml -> value.
    overrides
        Given on the command line, also in every row.
    rows
        Row -> what is set in this row only.
    targets
        Stages to run with what they need; none: all.
    report
        Module of studies that writes the report, None without one.
    """

    name: str
    file: Path
    description: str
    settings: Mapping[str, Any]
    overrides: Mapping[str, Any]
    rows: Mapping[str, Mapping[str, Any]]
    targets: Sequence[str]
    report: str | None


@dataclass(frozen=True)
class Row:
    """A row of a preset, checked: one experiment.

    Attributes
    ----------
    experiment
        Name of the DVC experiment.
    settings
        What it is given beside params.yaml: key -> value.
    content
        All of params.yaml with these settings.
    targets
        Stages to run with what they need; none: all.
    """

    experiment: str
    settings: Mapping[str, Any]
    content: Mapping[str, Any]
    targets: Sequence[str]

    @property
    def params(self) -> Params:
        """Typed content."""
        return Params.model_validate(self.content)


def preset_names() -> list[str]:
    """Return the names of all presets, sorted.

    Raises
    ------
    InputError
        Outside the repository root.
    """
    if not FOLDER.is_dir():
        raise InputError(f"{FOLDER}: no such folder in {Path.cwd()}; run from the repository root")
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_preset(name: str, overrides: Mapping[str, Any] | None = None, *, rehearsed: bool = False) -> Preset:
    """Read a preset.

    Parameters
    ----------
    name
        Of the file, without its ending.
    overrides
        Settings for every row, of the command line.
    rehearsed
        With the settings of its rehearsal: the same stages in little time, on simulated cells.

    Raises
    ------
    InputError
        If the file is missing or malformed, a row sets an overridden key itself, or there is no rehearsal.
    """
    overrides = overrides or {}
    file = _read(name)
    if rehearsed and "rehearsal" not in file:
        raise InputError(
            f"{FOLDER / name}.yaml: rehearsal: missing; only a preset with these settings can be rehearsed"
        )
    preset = Preset(
        name=f"{name}_rehearsal" if rehearsed else name,
        file=FOLDER / f"{name}.yaml",
        description=file["description"],
        settings=_settings_with_base(file, (name,)) | (file["rehearsal"] if rehearsed else {}),
        overrides=overrides,
        rows={row: differences or {} for row, differences in file.get("rows", {}).items()},
        targets=file.get("targets", []),
        report=file.get("report"),
    )
    for row, differences in preset.rows.items():
        for key in differences.keys() & overrides.keys():
            raise InputError(f"{preset.file}: rows.{row} sets {key} itself; leave out -S {key}={overrides[key]}")
    return preset


def parse_overrides(given: Iterable[str]) -> dict[str, Any]:
    """Return the settings of ``-S KEY=VALUE``; values are YAML.

    Raises
    ------
    InputError
        If one is no KEY=VALUE.
    """
    overrides = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"-S {text}: give KEY=VALUE")
        try:
            overrides[key] = _yaml().load(value)
        except YAMLError:
            raise InputError(f"-S {text}: the value is not YAML") from None
    return overrides


def select(names: Iterable[str], patterns: Sequence[str], file: Path) -> list[str]:
    """Return the rows that match any of the patterns, all without a pattern.

    Raises
    ------
    InputError
        If a pattern matches no row.
    """
    names = list(names)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InputError(f"{file}: no row {pattern}; it has {', '.join(names)}")
    return [name for name in names if not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)]


def resolve(preset: Preset, path: str | Path = "params.yaml") -> dict[str, Row]:
    """Put each row's settings into params.yaml and check the result.

    Raises
    ------
    InputError
        Naming the preset's file, the row and the key.
    """
    defaults = _load(Path(path))
    rows = {}
    for name, differences in preset.rows.items():
        where = f"{preset.file}: row {name}"
        row = Row(f"{preset.name}-{name}".replace("_", "-"), {}, defaults, preset.targets)
        rows[name] = with_settings(row, {**preset.settings, **preset.overrides, **differences}, where)
        _validate(rows[name].content, where)
    if len({row.experiment for row in rows.values()}) < len(rows):
        raise InputError(f"{preset.file}: rows: two names differ in - and _ only, which experiments do not keep apart")
    return rows


def with_settings(row: Row, settings: Mapping[str, Any], where: str = "") -> Row:
    """Return a row with other settings, put into its content."""
    content = deepcopy(dict(row.content))
    for key, value in settings.items():
        _set(content, key, value, where)
    return replace(row, settings=settings, content=content)


def preset_sha256(rows: Mapping[str, Row]) -> str:
    """Return the hash of all parameters of all rows; folders of input files do not count."""
    contents = {}
    for name, row in rows.items():
        files = {key: Path(value).name for key in PATHS if (value := get(row.content, key))}
        contents[name] = with_settings(row, files).content
    return sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()


def get(content: Mapping[str, Any], key: str) -> Any:
    """Return the value of a dotted key."""
    for part in key.split("."):
        content = content[part]
    return content


def _yaml() -> YAML:
    return YAML(typ="safe", pure=True)


def _load(path: Path) -> Any:
    try:
        return _yaml().load(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run from the repository root") from None
    except YAMLError as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from None


def _read(name: str) -> dict[str, Any]:
    """Read a preset's file and check its form."""
    path = FOLDER / f"{name}.yaml"
    if not path.exists():
        raise InputError(f"{path}: no such preset; there are {', '.join(preset_names())}")
    content = _load(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected the keys {', '.join(FIELDS)}")
    for key, value in content.items():
        if key not in FIELDS:
            raise InputError(f"{path}: {key}: unknown key; the keys are {', '.join(FIELDS)}")
        if not isinstance(value, FIELDS[key]):
            raise InputError(f"{path}: {key}: expected a {FIELDS[key].__name__}, found {value!r}")
    if "description" not in content:
        raise InputError(f"{path}: description: missing; say in a sentence what the preset is for")
    if content.get("report", REPORTS[0]) not in REPORTS:
        raise InputError(f"{path}: report: {content['report']} is none of {', '.join(REPORTS)}")
    for row, differences in content.get("rows", {}).items():
        if not isinstance(row, str) or not ROW_NAME.fullmatch(row):
            raise InputError(
                f"{path}: rows: {row!r}: a name consists of letters, digits and . _ -, in quotes if digits"
            )
        if not isinstance(differences, dict | None):
            raise InputError(f"{path}: rows.{row}: expected settings, found {differences!r}")
    if targets := content.get("targets"):
        stages = _load(Path("dvc.yaml"))["stages"]
        for target in targets:
            if str(target).split("@")[0] not in stages:
                raise InputError(f"{path}: targets: {target} is no stage of dvc.yaml")
    return content


def _settings_with_base(file: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Return the settings of a file and of its bases; ``names`` leads from the preset to this file."""
    settings: dict[str, Any] = file.get("settings", {})
    if "base" not in file:
        return settings
    base = file["base"]
    if base in names:
        raise InputError(f"{FOLDER / names[0]}.yaml: base: {' -> '.join((*names, base))} leads back to itself")
    return _settings_with_base(_read(base), (*names, base)) | settings


def _set(content: dict[str, Any], key: str, value: Any, where: str) -> None:
    *sections, last = str(key).split(".")
    section: Any = content
    for part in sections:
        section = section.get(part) if isinstance(section, dict) else None
    if not isinstance(section, dict) or last not in section:
        raise InputError(f"{where}: {key}: no such key in params.yaml; correct its name")
    if isinstance(section[last], dict):
        raise InputError(f"{where}: {key}: a section; set its keys, as {key}.{next(iter(section[last]))}")
    section[last] = value


def _validate(content: Mapping[str, Any], where: str) -> None:
    try:
        Params.model_validate(content).check_baselines()
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, e['loc']))}: {e['msg']}"
            + ("" if isinstance(e["input"], dict) else f", found {e['input']!r}")
            for e in error.errors()
        ]
        raise InputError(f"{where}: {'; '.join(problems)}") from None
    except InputError as error:
        raise InputError(f"{where}: {str(error).removeprefix('params.yaml: ')}") from None
