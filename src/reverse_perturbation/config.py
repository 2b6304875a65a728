"""params.yaml as typed, frozen objects: an unknown, missing or mistyped key is an error."""

from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError
from ruamel.yaml import YAML, YAMLError

import reverse_perturbation.models as model_package
import reverse_perturbation.models.baselines as baseline_package
from reverse_perturbation.conditions import LabelSpace
from reverse_perturbation.errors import InputError

Mask = Literal["none", "own", "all_targets"]
GeneSet = Literal["all", "vocab"]
Ranking = Literal["classifier", "library"]
LibraryKind = Literal["bootstrap", "mean", "raw_cell", "raw_cell_vote"]
Similarity = Literal["cosine", "euclidean"]
Embedding = Literal["plain", "centred", "whitened"]
QueryKind = Literal["cell", "pseudobulk"]
ValueInput = Literal["binned", "binned_random", "log1p"]
Readout = Literal["cls", "mean", "genes"]
AdaptationMode = Literal["frozen", "head", "last_n", "lora", "full"]
SamplerKind = Literal["random", "balanced"]
Precision = Literal["float32", "bfloat16"]
LoraTarget = Literal["qkv", "out_proj", "linear1", "linear2"]
Fit = Literal["selection", "final"]
FITS: tuple[Fit, ...] = get_args(Fit)

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Dropout = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """A section of params.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


AnySection = TypeVar("AnySection", bound=Section)


class Simulated(Section):
    """Size of the simulated screen."""

    n_conditions: Annotated[int, Field(ge=2, le=282)]
    n_cells: Count
    n_genes: Count
    seed: Seed


class Data(Section):
    """Where the cells come from and which genes the models see."""

    source: Literal["simulated", "h5ad"]
    path: str
    genes: GeneSet
    simulated: Simulated

    @property
    def name(self) -> str:
        """Name of the screen in tables and titles."""
        return self.source if self.source == "simulated" else Path(self.path).stem


class Split(Section):
    """How cells are divided into reference, validation and query."""

    seed: Seed
    min_cells: Count
    kind: Literal["cell", "gem_group"]
    query_fraction: Share
    min_query: Count
    validation_fraction: Share
    max_duplicates: Dropout


class Scgpt(Section):
    """The checkpoint and its input."""

    checkpoint: str | None
    value_input: ValueInput
    zero_genes: bool
    max_tokens: Count


class Pretrain(Section):
    """The small scGPT trained in domain where no checkpoint is given."""

    layers: Count
    heads: Count
    width: Count
    dropout: Dropout
    epochs: Annotated[int, Field(ge=0)]
    batch_size: Count
    learning_rate: Positive
    mask_fraction: Share
    seed: Seed


class Optimizer(Section):
    """AdamW, its gradients and the average of its weights."""

    backbone_learning_rate: Positive
    head_learning_rate: Positive
    weight_decay: NotNegative
    clip_norm: Positive
    accumulation: Count
    ema: Dropout


class Schedule(Section):
    """How long to train and how the learning rates move."""

    epochs: Count
    patience: Count
    warmup_fraction: Dropout
    probe_epochs: Annotated[int, Field(ge=0)]


class Loss(Section):
    """Training objective: the weights of a sum, and the settings of its terms."""

    cross_entropy: NotNegative
    infonce: NotNegative
    supcon: NotNegative
    temperature: Positive
    label_smoothing: Dropout
    shared_gene_credit: Dropout

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.cross_entropy or self.infonce or self.supcon):
            raise ValueError("cross_entropy, infonce and supcon are all 0; give at least one a weight")
        return self


class Sampler(Section):
    """Which cells share a batch."""

    kind: SamplerKind
    batch_size: Count
    cells_per_condition: Annotated[int, Field(ge=2)]
    prior_correction: bool

    @model_validator(mode="after")
    def _whole_conditions(self) -> Self:
        if self.kind == "balanced" and self.batch_size % self.cells_per_condition:
            raise ValueError(
                f"batch_size {self.batch_size} is no multiple of cells_per_condition {self.cells_per_condition}, which "
                "the balanced sampler needs; change one of them"
            )
        return self


class Augmentation(Section):
    """How the training cells are resampled in each epoch."""

    mixing: Count
    thinning: Dropout
    token_dropout: Dropout

    @property
    def resamples(self) -> bool:
        """Whether every epoch has other training cells."""
        return self.mixing > 1 or self.thinning > 0 or self.token_dropout > 0


class Lora(Section):
    """Low-rank adapters."""

    rank: Count
    alpha: Positive
    dropout: Dropout
    targets: Annotated[list[LoraTarget], Field(min_length=1)]


class Adaptation(Section):
    """Which weights of the backbone are trained."""

    mode: AdaptationMode
    last_layers: Count
    dropout: Dropout
    lora: Lora


class Head(Section):
    """From the backbone's states to an embedding and to scores."""

    readout: Annotated[list[Readout], Field(min_length=1)]
    gene_rank: Count
    depth: Annotated[int, Field(ge=0)]
    width: Count
    dim: Count
    dropout: Dropout


class Cache(Section):
    """Where the output of frozen layers is kept."""

    dtype: Literal["float16", "float32"]
    limit_gb: NotNegative


class Finetune(Section):
    """How the encoder is adapted to the task."""

    optimizer: Optimizer
    schedule: Schedule
    loss: Loss
    sampler: Sampler
    augmentation: Augmentation
    adaptation: Adaptation
    head: Head
    cache: Cache
    refit: bool


class Fusion(Section):
    """Logistic regression's scores beside those of scGPT's head."""

    linear_learning_rate: NotNegative
    linear_dropout: Dropout


class Library(Section):
    """Vectors that represent a condition in retrieval."""

    kind: LibraryKind
    embedding: Embedding
    similarity: Similarity
    prototypes: Count
    cells_per_prototype: Count
    neighbours: Count
    seed: Seed


class Query(Section):
    """Queries: single cells or averages of several."""

    kind: QueryKind
    cells_per_query: Count
    draws: Count
    seed: Seed


class LibraryQuery(Section):
    """Sizes of the grid of libraries and queries, and its intervals."""

    cells_per_query: Annotated[list[Count], Field(min_length=1)]
    validation_cells_per_query: Count
    draws: Count
    seed: Seed

    @field_validator("cells_per_query")
    @classmethod
    def _each_size_once(cls, sizes: list[int]) -> list[int]:
        if len(set(sizes)) < len(sizes):
            raise ValueError("a size of pseudo-bulk is listed twice; list each once")
        return sizes


class Evaluate(Section):
    """Ranking of the headline."""

    ranking: Ranking


class Compare(Section):
    """The paired bootstrap of the gap."""

    draws: Count
    seed: Seed


class Analysis(Section):
    """Calibration, ceilings and error analysis."""

    bins: Count
    similar: Share
    cells_per_query: Annotated[list[Count], Field(min_length=1)]
    draws: Count
    seed: Seed


class Targets(Section):
    """The success criteria of the specification."""

    exact_hit_at_1: Share
    mrr: Share
    relative_gap: Share


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
    finetune: Finetune
    fusion: Fusion
    library: Library
    query: Query
    library_query: LibraryQuery
    evaluate: Evaluate
    compare: Compare
    analysis: Analysis
    targets: Targets

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
            raise InputError(f"params.yaml: {problems}") from None

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
        return Params.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{path}: " + "; ".join(_complaint(e) for e in error.errors())) from None


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
