"""params.yaml as typed, frozen objects: an unknown, missing or mistyped key is an error."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML, YAMLError

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
Adaptation = Literal["frozen", "head", "last_n", "lora", "full"]
Sampler = Literal["random", "balanced"]
Precision = Literal["float32", "bfloat16"]
Trained = Literal["scgpt", "fusion"]
LoraTarget = Literal["qkv", "out_proj", "linear1", "linear2"]

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Dropout = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """A section of params.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Simulated(Section):
    """Size of the simulated screen."""

    conditions: Annotated[int, Field(ge=2, le=282)]
    cells: Count
    genes: Count
    seed: Seed


class Data(Section):
    """Where the cells come from and which genes the models see."""

    source: Literal["simulated", "h5ad"]
    path: str
    genes: GeneSet
    simulated: Simulated


class Split(Section):
    """How cells are divided into reference, validation and query."""

    seed: Seed
    min_cells: Count
    kind: Literal["cell", "gem_group"]
    query_fraction: Share
    min_query: Count
    validation_fraction: Share
    max_duplicates: Dropout


class Logreg(Section):
    """What the tuned logistic regression chooses from."""

    scaling: Annotated[list[Literal["none", "max_abs"]], Field(min_length=1)]
    c: Annotated[list[Positive], Field(min_length=1)]
    max_iter: Count


class Pca(Section):
    """Principal components of the reference cells."""

    components: Count
    seed: Seed


class Scgpt(Section):
    """The checkpoint and what is fed to it."""

    checkpoint: str | None
    value_input: ValueInput
    zero_genes: bool
    max_tokens: Count


class Pretrain(Section):
    """The small scGPT that stands in where no checkpoint is at hand."""

    layers: Count
    heads: Count
    width: Count
    dropout: Dropout
    epochs: Annotated[int, Field(ge=0)]
    batch_size: Count
    learning_rate: Positive
    mask_fraction: Share
    seed: Seed


class Lora(Section):
    """Low-rank adapters."""

    rank: Count
    alpha: Positive
    dropout: Dropout
    targets: Annotated[list[LoraTarget], Field(min_length=1)]


class Loss(Section):
    """What fine-tuning lowers: the weights of a sum, and what its terms take."""

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


class Cache(Section):
    """Where frozen work is kept."""

    dtype: Literal["float16", "float32"]
    limit_gb: NotNegative


class Finetune(Section):
    """How scGPT is adapted to the task."""

    epochs: Count
    patience: Count
    batch_size: Count
    backbone_learning_rate: Positive
    head_learning_rate: Positive
    weight_decay: NotNegative
    warmup_fraction: Dropout
    dropout: Dropout
    loss: Loss
    sampler: Sampler
    cells_per_condition: Annotated[int, Field(ge=2)]
    prior_correction: bool
    accumulation: Count
    ema: Dropout
    probe_epochs: Annotated[int, Field(ge=0)]
    clip_norm: Positive
    adaptation: Adaptation
    last_layers: Count
    lora: Lora
    cache: Cache
    mixing: Count
    thinning: Dropout
    token_dropout: Dropout
    refit: bool
    readout: Annotated[list[Readout], Field(min_length=1)]
    gene_rank: Count
    head_depth: Annotated[int, Field(ge=0)]
    head_width: Count
    head_dim: Count
    head_dropout: Dropout

    @property
    def draws_cells(self) -> bool:
        """Whether the training cells are other ones in each epoch."""
        return self.mixing > 1 or self.thinning > 0 or self.token_dropout > 0

    @model_validator(mode="after")
    def _whole_conditions(self) -> Self:
        if self.sampler == "balanced" and self.batch_size % self.cells_per_condition:
            raise ValueError(
                f"batch_size {self.batch_size} is no multiple of cells_per_condition {self.cells_per_condition}, which "
                "sampler balanced needs; change one of them"
            )
        return self


class Fusion(Section):
    """Logistic regression's scores beside those of scGPT's head."""

    linear_learning_rate: NotNegative
    linear_dropout: Dropout


class Library(Section):
    """What stands for a condition when cells are compared with it."""

    kind: LibraryKind
    embedding: Embedding
    similarity: Similarity
    prototypes: Count
    cells_per_prototype: Count
    neighbours: Count
    seed: Seed


class Query(Section):
    """What is asked about: single cells or averages of several."""

    kind: QueryKind
    cells: Count
    draws: Count
    seed: Seed


class LibraryQuery(Section):
    """What the grid of libraries and queries spans, and its intervals."""

    cells: Annotated[list[Count], Field(min_length=1)]
    validation_cells: Count
    draws: Count
    seed: Seed

    @field_validator("cells")
    @classmethod
    def _each_size_once(cls, cells: list[int]) -> list[int]:
        if len(set(cells)) < len(cells):
            raise ValueError("a size of pseudo-bulk is listed twice; list each once")
        return cells


class Evaluate(Section):
    """Which ranking stands in the headline."""

    ranking: Ranking


class Compare(Section):
    """The paired bootstrap of the gap."""

    draws: Count
    seed: Seed


class Analysis(Section):
    """Calibration, ceilings and error analysis."""

    bins: Count
    similar: Share
    averaged: Annotated[list[Count], Field(min_length=1)]
    draws: Count
    seed: Seed


class Targets(Section):
    """The success criteria of the specification."""

    exact_hit_at_1: Share
    mrr: Share
    relative_gap: Share


class Params(Section):
    """All of params.yaml."""

    data: Data
    mask: Mask
    labels: LabelSpace
    split: Split
    seeds: Annotated[list[Seed], Field(min_length=1)]
    models: list[Trained]
    launcher: Annotated[str, Field(min_length=1)]
    precision: Precision
    logreg: Logreg
    pca: Pca
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

    @field_validator("seeds")
    @classmethod
    def _each_once(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed is listed twice; two runs of one seed are one run")
        return seeds

    @field_validator("models")
    @classmethod
    def _scgpt_first(cls, models: list[Trained]) -> list[Trained]:
        if models not in (["scgpt"], ["scgpt", "fusion"]):
            raise ValueError("give [scgpt] or [scgpt, fusion]; the targets are those of scgpt")
        return models


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


def _complaint(error: object) -> str:
    assert isinstance(error, dict)
    key = ".".join(str(part) for part in error["loc"]) or "the file"
    # Of keys that do not go together the message says what was found; the input is the whole section.
    told = error["type"] == "missing" or (error["type"] == "value_error" and isinstance(error["input"], dict))
    found = "" if told else f", found {error['input']!r}"
    advice = "unknown key, remove it or mend its name" if error["type"] == "extra_forbidden" else error["msg"]
    return f"{key}: {advice}{found}"
