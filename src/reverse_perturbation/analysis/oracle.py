"""Upper bound on simulated cells: Bayes' rule with everything the counts were drawn from.

docs/protocol.md says what it knows and what it bounds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.special import logsumexp

from reverse_perturbation.conditions import canonical, genes_of
from reverse_perturbation.data.screen.mask import target_columns
from reverse_perturbation.data.screen.masked_screen import MaskedScreen
from reverse_perturbation.errors import InputError
from reverse_perturbation.prepare.simulate import GenerativeModel, Truth
from reverse_perturbation.retrieval.evaluate import Evaluator, QuerySetting, Scores, average
from reverse_perturbation.sections import Mask

NODES = 16  # of the integral over a cell's share of its effect; with 64 no prediction differs on the default screen


@dataclass(frozen=True)
class Oracle:
    """The best possible ranker of simulated cells.

    Attributes
    ----------
    conditions
        Candidates, object array of str.
    likelihood
        float64 [n_cells, n_conditions]: of :func:`log_likelihood` for each cell of the split; 0 where it is no query.
    """

    conditions: np.ndarray
    likelihood: np.ndarray

    @classmethod
    def of(cls, truth: Truth, screen: MaskedScreen, mask: Mask) -> "Oracle":
        """Compute the likelihoods of the query cells.

        Parameters
        ----------
        truth
            What the cells were drawn from.
        screen
            The cells of the split without controls, all genes.
        mask
            The mask of the screen.

        Raises
        ------
        InputError
            If these cells were not drawn from it.
        """
        place = {name: i for i, name in enumerate(truth.names)}
        if list(screen.genes) != truth.genes or not place.keys() >= set(screen.cell_ids):
            raise InputError("the prepared cells are not those of data.simulated; run `dvc repro prepare`")
        conditions = np.array(screen.classes(), dtype=object)
        query = screen.rows("query")
        likelihood = np.zeros((len(screen.cell_ids), len(conditions)))
        rows = np.array([place[name] for name in screen.cell_ids[query]])
        likelihood[query] = log_likelihood(truth, rows, screen.counts[query], list(conditions), mask)
        return cls(conditions, likelihood)

    def scores(self, evaluator: Evaluator, setting: QuerySetting, *, equal: bool = False) -> Scores:
        """Score queries by the posterior, of a pseudo-bulk from all its cells, not their mean.

        Parameters
        ----------
        evaluator, setting
            The queries, in the label space of the oracle.
        equal
            Use equal priors for the conditions of the queries, optimal where each condition counts the same;
            otherwise their frequencies among the queries, optimal where each query counts the same.
        """
        groups, labels, names = evaluator.queries(setting, "query")
        frequency = np.array([np.count_nonzero(labels == name) for name in self.conditions], dtype=np.float64)
        prior = np.full(len(frequency), -np.inf)
        prior[frequency > 0] = 0 if equal else np.log(frequency[frequency > 0])
        return Scores(names, labels, self.conditions, average(self.likelihood, groups) * groups.shape[1] + prior)


def log_likelihood(
    truth: Truth, rows: np.ndarray, counts: sp.csr_matrix, conditions: Sequence[str], mask: Mask, nodes: int = NODES
) -> np.ndarray:
    """Return how likely each cell's masked counts are under each condition.

    A cell's gem group, depth and phase of the cell cycle are taken as known; over its share of the effect, which is
    not independent of the counts given the condition, the likelihood is integrated (Gauss-Legendre).

    Parameters
    ----------
    truth
        What the cells were drawn from.
    rows
        int [n]: places of the cells in ``truth.cells``.
    counts
        CSR [n, n_genes]: their masked counts of all genes.
    conditions
        Candidates, in either label space; of twins, both have the same likelihood.
    mask
        The mask of the counts. A gene that a candidate would have hidden has a count of 0 under it.
    nodes
        Of the integral.

    Returns
    -------
    numpy.ndarray
        float64 [n, n_conditions], up to a constant for each cell; -inf where a count is impossible.
    """
    names = [canonical(label) for label in truth.conditions]
    effects = truth.effects.astype(np.float64)[[names.index(canonical(name)) for name in conditions]]
    strength, weight = _strengths(truth.model, nodes)
    seen = _seen(truth, conditions, mask)
    change = np.exp(strength[:, None] * effects[:, None, :])  # conditions x nodes x genes
    likelihood = np.empty((len(rows), len(conditions)))
    for i, row in enumerate(rows):
        x = np.asarray(counts[i].todense(), dtype=np.float64).ravel()
        base = _without_effect(truth, row)
        scale = truth.cells.depth[row] / (change @ base)
        growth = change * (base / truth.baseline.shape)
        growth *= scale[:, :, None]
        growth += 1
        np.log(growth, out=growth)
        lost = np.matmul(growth, np.where(seen, x + truth.baseline.shape, 0)[:, :, None])[:, :, 0]
        # Terms of a negative binomial's log probability that depend on its mean m: x log m - (x + r) log(1 + m / r).
        inside = (effects @ x)[:, None] * strength + x.sum() * np.log(scale) - lost
        likelihood[i] = logsumexp(inside + np.log(weight), axis=1)
        likelihood[i, (~seen & (x > 0)).any(axis=1)] = -np.inf
    return likelihood


def _without_effect(truth: Truth, row: int) -> np.ndarray:
    """Return float64 [n_genes]: a cell's expected expression without perturbation, up to a factor."""
    cells, baseline = truth.cells, truth.baseline
    phase = np.array([np.cos(cells.phase[row]), np.sin(cells.phase[row])])
    log_mean = baseline.log_mean.astype(np.float64) + baseline.lane[cells.lane[row]] + phase @ baseline.cycle
    means: np.ndarray = np.exp(log_mean)
    return means


def _strengths(model: GenerativeModel, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return shares of the effect and their probabilities, both float64 [nodes]."""
    place, weight = np.polynomial.legendre.leggauss(nodes)
    return ((place + 1) / 2) ** model.weakness, weight / 2


def _seen(truth: Truth, conditions: Sequence[str], mask: Mask) -> np.ndarray:
    """Return bool [n_conditions, n_genes]: the genes that are not masked in a cell of a condition."""
    columns = target_columns(truth.conditions, truth.genes)
    seen = np.ones((len(conditions), len(truth.genes)), dtype=bool)
    for i, name in enumerate(conditions):
        masked = {"none": [], "own": genes_of(name), "all_targets": columns}[mask]
        seen[i, [column for gene in masked for column in columns[gene]]] = False
    return seen
