"""The sections of params.yaml: typed, frozen, with the range of every value."""

from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

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
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None
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
    known_fraction: Annotated[float, Field(gt=0, le=1)]
    max_duplicates: Dropout


NO_CHECKPOINT = "data/no_checkpoint"


class Scgpt(Section):
    """The checkpoint and its input."""

    checkpoint: str
    value_input: ValueInput
    zero_genes: bool
    max_tokens: Count

    @property
    def given(self) -> str | None:
        """The folder of a checkpoint; None where none is given.

        A path stands for none, as null could not be a dependency in dvc.yaml: without one, another checkpoint under
        the same path would leave the results of the first.
        """
        return None if self.checkpoint == NO_CHECKPOINT else self.checkpoint


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


class Tuning(Section):
    """Cross-validation in the known cells, by which settings of baselines are chosen."""

    folds: Count
    seed: Seed


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
