"""A simulated CRISPRa screen: one generative model, described with its calibration in docs/simulator.md."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from scipy.special import ndtri

from reverse_perturbation.conditions import CONTROL, canonical, genes_of
from reverse_perturbation.config import Simulated
from reverse_perturbation.prepare.simulate_plan import name_genes, plan_cells

BLOCK = 256  # cells drawn at once: a dense block of 5,045 genes takes 5 MB


@dataclass(frozen=True)
class GenerativeModel:
    """Constants of the generative model.

    Attributes
    ----------
    mean_spread, mean_cap
        Gene means are quantiles of a log-normal of this standard deviation (natural log), none above this multiple
        of their mean. Set so that 8.1 % of the counts at full size are not zero.
    library_root, library_root_spread, library_min
        Square roots of expected library sizes are normal; sizes below the minimum are raised to it. They are
        the Norman file's whatever the number of genes: a smaller panel is read more deeply.
    target_quantiles
        Where among the gene means those of the targets lie: genes worth activating are not highly expressed.
    dispersion_shape, dispersion_spread
        Shape of the negative binomial, ``variance = mean + mean**2 / shape``: median over genes and standard
        deviation of its log.
    programmes, programme_share
        Shared gene programmes, and the share of genes in each, with normal weights.
    programmes_per_target
        Mean of the Poisson number of programmes a target moves beyond its first.
    effect, effect_spread
        Median size of a target's effect on its programmes' genes (natural log) and standard deviation of its log.
    interaction
        Size of a double's interaction, relative to its single effects.
    activation, activation_spread
        Rise of the target gene itself (natural log), mean and standard deviation.
    largest_effect
        No gene's log mean is moved by more than this.
    weakness
        The knob of difficulty: a perturbed cell has the share ``u ** weakness`` of its condition's effect, ``u``
        uniform between 0 and 1. At 0 all cells are alike, at 1 a fifth of them has less than a fifth of the effect.
    lanes, lane_effect, lane_depth
        Gem groups; standard deviations of their effect on genes and on the log of library sizes.
    cycle_share, cycle_effect
        Share of the genes that follow the cell cycle, and the size of their swing (natural log).
    """

    mean_spread: float = 3.33
    mean_cap: float = 150.0
    library_root: float = 54.2
    library_root_spread: float = 10.0
    library_min: float = 500.0
    target_quantiles: tuple[float, float] = (0.3, 0.9)
    dispersion_shape: float = 3.0
    dispersion_spread: float = 0.5
    programmes: int = 40
    programme_share: float = 0.1
    programmes_per_target: float = 2.0
    effect: float = 0.65
    effect_spread: float = 0.6
    interaction: float = 0.4
    activation: float = 2.5
    activation_spread: float = 0.5
    largest_effect: float = 3.0
    weakness: float = 0.6
    lanes: int = 8
    lane_effect: float = 0.1
    lane_depth: float = 0.05
    cycle_share: float = 0.1
    cycle_effect: float = 0.5


MODEL = GenerativeModel()


def simulate(
    conditions: pd.DataFrame,
    config: Simulated,
    vocabulary: Sequence[str],
    aliases: Mapping[str, str],
    *,
    model: GenerativeModel = MODEL,
    block: int = BLOCK,
) -> AnnData:
    """Simulate a screen.

    Parameters
    ----------
    conditions
        Columns ``condition`` (legacy labels, ``ctrl`` among them) and ``cells``.
    config
        Section ``data.simulated``.
    vocabulary
        Tokens of scGPT, from which most gene names come.
    aliases
        Other symbol -> current symbol: some genes come under their old name.
    model
        Constants of the generative model.
    block
        Cells drawn at once; the result does not depend on it.

    Returns
    -------
    anndata.AnnData
        Cells in random order: ``layers["counts"]`` CSR float32, ``obs`` with ``condition``, ``control`` and
        ``gem_group``, ``var`` with ``gene_name``; all that contract.py asks for.

    Raises
    ------
    InputError
        If the table of conditions or the size asked for is impossible.
    """
    truth = Truth.draw(conditions, config, vocabulary, aliases, model=model)
    counts = _counts(truth, np.random.default_rng(_streams(config)[-1]), block)
    labels, lane = truth.labels, truth.cells.lane
    obs = pd.DataFrame(
        {"condition": labels, "control": labels == CONTROL, "gem_group": (lane + 1).astype(str)}, index=truth.names
    )
    var = pd.DataFrame({"gene_name": truth.genes}, index=pd.Index(truth.genes, name="gene_symbol"))
    source = {
        "kind": "simulated",
        "description": "made up by reverse_perturbation.prepare.simulate (docs/simulator.md): no real cells",
        "seed": config.seed,
        "layers": ["counts"],
        "counts_dtype": "float32",
    }
    return AnnData(obs=obs, var=var, layers={"counts": counts}, uns={"source": source})


def _streams(config: Simulated) -> list[np.random.SeedSequence]:
    """Seed the streams of names, genes, effects, cells and counts."""
    return np.random.SeedSequence(config.seed).spawn(5)


@dataclass(frozen=True)
class Truth:
    """All that the counts are drawn from.

    Attributes
    ----------
    genes
        Names, in the order of the columns.
    conditions
        Legacy labels, control among them, in the order of ``effects``.
    baseline
        Expression without perturbation.
    effects
        float32 [n_conditions, n_genes]: change of each gene's log mean under the whole effect.
    cells
        What differs from cell to cell; their ``condition`` is a row of ``effects``.
    model
        Constants of the generative model.
    """

    genes: list[str]
    conditions: list[str]
    baseline: "Baseline"
    effects: np.ndarray
    cells: "SimulatedCells"
    model: GenerativeModel

    @classmethod
    def draw(
        cls,
        conditions: pd.DataFrame,
        config: Simulated,
        vocabulary: Sequence[str],
        aliases: Mapping[str, str],
        *,
        model: GenerativeModel = MODEL,
    ) -> "Truth":
        """Draw what :func:`simulate` draws before the counts; parameters and errors as there."""
        names_rng, genes_rng, effects_rng, cells_rng = (np.random.default_rng(s) for s in _streams(config)[:-1])
        plan = plan_cells(conditions, config)
        targets = sorted(set().union(*(genes_of(label) for label in plan.index)))
        genes = name_genes(targets, config.n_genes, vocabulary, aliases, names_rng)
        return cls(
            genes=genes,
            conditions=list(plan.index),
            baseline=Baseline.draw(np.isin(genes, targets), model, genes_rng),
            effects=_effects(list(plan.index), genes, model, effects_rng),
            cells=SimulatedCells.draw(plan, model, cells_rng),
            model=model,
        )

    @property
    def labels(self) -> np.ndarray:
        """The label of each cell, array of str."""
        return np.array(self.conditions)[self.cells.condition]

    @property
    def names(self) -> list[str]:
        """The id of each cell."""
        return [f"cell{i}-{lane + 1}" for i, lane in enumerate(self.cells.lane)]


@dataclass(frozen=True)
class Baseline:
    """Expression without perturbation.

    ``log_mean``, ``shape`` float32 [n_genes]; ``lane`` float32 [lanes, n_genes]; ``cycle`` float32 [2, n_genes].
    """

    log_mean: np.ndarray
    shape: np.ndarray
    lane: np.ndarray
    cycle: np.ndarray

    @classmethod
    def draw(cls, is_target: np.ndarray, model: GenerativeModel, rng: np.random.Generator) -> "Baseline":
        """Draw genes, bool [n_genes] says which are targets."""
        # Quantiles instead of draws: depth and sparsity do not hang on a few lucky genes of a seed.
        genes = len(is_target)
        quantile = (np.arange(genes) + 0.5) / genes
        low, high = model.target_quantiles
        fit_for_target = (quantile >= low) & (quantile < high)
        first = rng.permutation(genes)
        first = np.concatenate([first[fit_for_target[first]], first[~fit_for_target[first]]])
        place = np.empty(genes, dtype=np.int64)
        place[is_target] = first[: is_target.sum()]
        place[~is_target] = rng.permutation(first[is_target.sum() :])
        mean = np.exp(model.mean_spread * ndtri(quantile[place]))
        mean = np.minimum(mean / mean.mean(), model.mean_cap)
        in_cycle = rng.random(genes) < model.cycle_share
        return cls(
            log_mean=np.log(mean).astype(np.float32),
            shape=np.exp(rng.normal(np.log(model.dispersion_shape), model.dispersion_spread, genes)).astype(np.float32),
            lane=rng.normal(0, model.lane_effect, (model.lanes, genes)).astype(np.float32),
            cycle=(rng.normal(0, model.cycle_effect, (2, genes)) * in_cycle).astype(np.float32),
        )


def _effects(labels: list[str], genes: list[str], model: GenerativeModel, rng: np.random.Generator) -> np.ndarray:
    """Return float32 [n_labels, n_genes]: change of each gene's log mean; the same for twins, 0 for control."""
    programmes = rng.normal(size=(model.programmes, len(genes)))
    programmes *= rng.random(programmes.shape) < model.programme_share
    targets = sorted(set().union(*(genes_of(label) for label in labels)))
    sizes = dict(zip(targets, model.effect * np.exp(rng.normal(0, model.effect_spread, len(targets))), strict=True))
    mixes = {target: sizes[target] * _mix(model, rng) for target in targets}
    rises = dict(zip(targets, rng.normal(model.activation, model.activation_spread, len(targets)), strict=True))
    found = {CONTROL: np.zeros(len(genes))}
    for name in sorted({canonical(label) for label in labels} - {CONTROL}):
        own = sorted(genes_of(name))
        mix = np.sum([mixes[target] for target in own], axis=0)
        if len(own) > 1:
            mix += model.interaction * np.mean([sizes[target] for target in own]) * _mix(model, rng)
        found[name] = mix @ programmes
        found[name][[genes.index(target) for target in own]] += [rises[target] for target in own]
    effects = np.array([found[canonical(label)] for label in labels], dtype=np.float32)
    return np.clip(effects, -model.largest_effect, model.largest_effect)


def _mix(model: GenerativeModel, rng: np.random.Generator) -> np.ndarray:
    """Draw a sparse vector of length 1 over programmes."""
    number = min(model.programmes, 1 + rng.poisson(model.programmes_per_target))
    mix = np.zeros(model.programmes)
    mix[rng.choice(model.programmes, number, replace=False)] = rng.normal(size=number)
    result: np.ndarray = mix / np.linalg.norm(mix)
    return result


@dataclass(frozen=True)
class SimulatedCells:
    """What differs from cell to cell, all [n_cells]: rows of the plan, lanes, depth, strength, phase of the cycle."""

    condition: np.ndarray
    lane: np.ndarray
    depth: np.ndarray
    strength: np.ndarray
    phase: np.ndarray

    @classmethod
    def draw(cls, plan: pd.Series, model: GenerativeModel, rng: np.random.Generator) -> "SimulatedCells":
        """Draw the cells of a plan in random order."""
        condition = rng.permutation(np.repeat(np.arange(len(plan)), plan))
        n = len(condition)
        lane = rng.integers(model.lanes, size=n)
        depth = np.maximum(rng.normal(model.library_root, model.library_root_spread, n) ** 2, model.library_min)
        depth *= np.exp(rng.normal(0, model.lane_depth, model.lanes))[lane]
        strength = rng.random(n) ** model.weakness
        phase = rng.uniform(0, 2 * np.pi, n)
        return cls(condition, lane, *(x.astype(np.float32) for x in (depth, strength, phase)))


def _counts(truth: Truth, rng: np.random.Generator, block: int) -> sp.csr_matrix:
    """Draw counts block by block.

    Only element-wise operations and sums along a row touch a block, and one stream of uniform numbers feeds all, so
    that the size of the blocks changes no bit (a matrix product would).
    """
    baseline, effects, cells = truth.baseline, truth.effects, truth.cells
    n_genes = len(baseline.log_mean)
    data, indices, lengths = [], [], []
    for start in range(0, len(cells.condition), block):
        part = slice(start, start + block)
        mean = effects[cells.condition[part]]
        mean *= cells.strength[part, None]
        mean += baseline.log_mean
        mean += baseline.lane[cells.lane[part]]
        mean += np.cos(cells.phase[part, None]) * baseline.cycle[0]
        mean += np.sin(cells.phase[part, None]) * baseline.cycle[1]
        np.exp(mean, out=mean)
        mean *= (cells.depth[part] / mean.sum(axis=1))[:, None]
        row, column, values = _negative_binomial(mean, baseline.shape, rng)
        data.append(values)
        indices.append(column)
        lengths.append(np.bincount(row, minlength=len(mean)))
    indptr = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    return sp.csr_matrix((np.concatenate(data), np.concatenate(indices), indptr), shape=(len(cells.condition), n_genes))


def _negative_binomial(
    mean: np.ndarray, shape: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw from negative binomials by inversion, with the work going to the few counts that are not zero.

    Parameters
    ----------
    mean
        float32 [n, n_genes].
    shape
        float32 [n_genes]; the variance is ``mean + mean**2 / shape``.

    Returns
    -------
    row, column, count
        Of the counts above zero, in the order of rows and columns; count float32, column int32.

    Raises
    ------
    ValueError
        If a mean is so large for its shape that inversion, which starts from the probability of 0, cannot reach it.
    """
    uniform = rng.random(mean.shape, dtype=np.float32)
    zero = np.exp(-shape * np.log1p(mean / shape))
    row, column = np.nonzero(uniform >= zero)
    # From here in double precision: the cumulative probability must pass any uniform number below 1.
    u, mu, r = (
        uniform[row, column].astype(float),
        mean[row, column].astype(float),
        shape[column].astype(float),
    )
    ratio = mu / (mu + r)
    probability = np.exp(-r * np.log1p(mu / r))
    if not probability.all():
        raise ValueError("a mean is too large for its shape: the probability of a count of 0 is below double precision")
    count = np.ones(len(u))
    probability *= r * ratio
    cumulative = probability * (1 + 1 / (r * ratio))
    beyond = np.flatnonzero(u >= cumulative)
    u, ratio, r, probability, cumulative = (x[beyond] for x in (u, ratio, r, probability, cumulative))
    k = 1
    while len(beyond):
        k += 1
        probability *= ratio * (r + k - 1) / k
        cumulative += probability
        count[beyond] = k
        left = u >= cumulative
        beyond = beyond[left]
        u, ratio, r, probability, cumulative = (x[left] for x in (u, ratio, r, probability, cumulative))
    return row, column.astype(np.int32), count.astype(np.float32)
