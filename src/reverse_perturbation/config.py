"""params.yaml as typed, frozen objects: an unknown, missing or mistyped key is an error."""

from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, PrivateAttr, ValidationError, field_validator
from pydantic_core import PydanticCustomError
from ruamel.yaml import YAML, YAMLError

import reverse_perturbation.models as model_package
import reverse_perturbation.models.baselines as baseline_package
from reverse_perturbation.conditions import LabelSpace
from reverse_perturbation.errors import InputError
from reverse_perturbation.sections import (
    Analysis,
    AnySection,
    Compare,
    Data,
    Evaluate,
    Finetune,
    Library,
    LibraryQuery,
    Mask,
    Precision,
    Pretrain,
    Query,
    Scgpt,
    Section,
    Seed,
    Split,
    Targets,
    Tuning,
)


def _section_of_a_model(name: str) -> str:
    if name not in {*known_baselines(), *known_encoders()}:
        raise PydanticCustomError("extra_forbidden", "no such section")  # as of a stray key in any other section
    return name


class Params(Section):
    """All of params.yaml. Sections of baselines and of other foundation models are checked by their own ``Config``."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    __pydantic_extra__: dict[Annotated[str, AfterValidator(_section_of_a_model)], Any]

    data: Data
    mask: Mask
    labels: LabelSpace
    split: Split
    seeds: Annotated[list[Seed], Field(min_length=1)]
    models: list[str]
    baselines: list[str]
    launcher: Annotated[str, Field(min_length=1)]
    precision: Precision
    scgpt: Scgpt
    pretrain: Pretrain
    tuning: Tuning
    finetune: Finetune
    library: Library
    query: Query
    library_query: LibraryQuery
    evaluate: Evaluate
    compare: Compare
    analysis: Analysis
    targets: Targets
    _path: str = PrivateAttr("params.yaml")  # for errors

    @property
    def encoder(self) -> str:
        """Name of the foundation model: a folder of ``reverse_perturbation.models``."""
        return self.models[0]

    def section(self, name: str, kind: type[AnySection]) -> AnySection:
        """Return the section of a baseline or of a foundation model, checked.

        Raises
        ------
        InputError
            Naming the keys that are unknown, missing or wrong.
        """
        try:
            return kind.model_validate((self.model_extra or {}).get(name, {}))
        except ValidationError as error:
            problems = "; ".join(_complaint(e, name) for e in error.errors())
            raise InputError(f"{self._path}: {problems}") from None

    def check_baselines(self) -> None:
        """Check the section of every baseline, before any work is done; raises as :meth:`section`."""
        for name in self.baselines:
            self.section(name, import_module(f"{baseline_package.__name__}.{name}").Config)

    @field_validator("seeds")
    @classmethod
    def _each_once(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed is listed twice; two runs of one seed are one run")
        return seeds

    @field_validator("models")
    @classmethod
    def _encoder_first(cls, names: list[str]) -> list[str]:
        known = known_encoders()
        if not names or names[0] not in known or names[1:] not in ([], ["fusion"]):
            raise ValueError(
                f"give a foundation model ({', '.join(known)}), alone or followed by fusion: the targets are its own"
            )
        return names

    @field_validator("baselines")
    @classmethod
    def _known_baselines(cls, names: list[str]) -> list[str]:
        known = known_baselines()
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ValueError(f"{unknown[0]} is no file of models/baselines, which has {', '.join(known)}")
        if len(set(names)) < len(names):
            raise ValueError("a baseline is listed twice; list each once")
        if missing := [name for name in ("logreg", "pca") if name not in names]:
            raise ValueError(f"{missing[0]} is missing: the comparison and the analysis need logreg and pca")
        return names


def known_encoders() -> list[str]:
    """Return the foundation models: folders of ``models`` with an ``encoder``."""
    packages = [path for root in model_package.__path__ for path in Path(root).glob("*/encoder/checkpoint.py")]
    return sorted(path.parts[-3] for path in packages)


def known_baselines() -> list[str]:
    """Return the baselines: files of ``models/baselines``."""
    files = [path for root in baseline_package.__path__ for path in Path(root).glob("*.py")]
    return sorted(path.stem for path in files if not path.stem.startswith("_"))


def load_params(path: str | Path = "params.yaml") -> Params:
    """Read and check params.yaml.

    ruamel.yaml reads YAML 1.2, in which the ``1e-05`` that ``dvc exp run -S`` writes is a number; PyYAML
    would hand over a string.

    Raises
    ------
    InputError
        If the file is missing or not YAML, or a key is unknown, missing or of the wrong type; every such
        key is named.
    """
    try:
        content = YAML(typ="safe", pure=True).load(Path(path))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run from the repository root or pass --params") from None
    except YAMLError as error:
        raise InputError(f"{path}: not YAML: {error}") from None
    try:
        params = Params.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{path}: " + "; ".join(_complaint(e) for e in error.errors())) from None
    params._path = str(path)
    return params


def _complaint(error: object, *section: str) -> str:
    assert isinstance(error, dict)
    key = ".".join(str(part) for part in (*section, *error["loc"]))
    if not key:
        return str(error["msg"])
    # The message about keys that do not go together says what was found; the input is the whole section.
    said = error["type"] == "missing" or (error["type"] == "value_error" and isinstance(error["input"], dict))
    found = "" if said else f", found {error['input']!r}"
    advice = "unknown key, remove it or correct its name" if error["type"] == "extra_forbidden" else error["msg"]
    return f"{key}: {advice}{found}"
