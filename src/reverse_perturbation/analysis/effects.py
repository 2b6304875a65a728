"""How strong each perturbation's effect is, and which perturbations have similar effects."""

import numpy as np


def e_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the E-distance of two groups of cells, unbiased: 0 in expectation where both come from one distribution.

    ``2 delta - sigma_a - sigma_b``, where delta is the mean squared Euclidean distance between cells of different
    groups and sigma that between different cells of one group (Peidli et al. 2024, doi:10.1038/s41592-023-02144-y,
    with their correction for the number of cells). With squared distances these means are functions of the groups'
    means and variances, so no distance between two cells is computed: time and memory are linear in the cells.

    Parameters
    ----------
    a, b
        float [n, d] and [m, d], at least two cells each.

    Raises
    ------
    ValueError
        If a group has fewer than two cells: it has no distance within.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"an E-distance needs two cells in each group, found {len(a)} and {len(b)}")
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    between = np.sum((a.mean(axis=0) - b.mean(axis=0)) ** 2)
    noise = sum(cells.var(axis=0, ddof=1).sum() / len(cells) for cells in (a, b))
    return float(2 * (between - noise))


def mean_profiles(cells: np.ndarray, labels: np.ndarray, conditions: np.ndarray) -> np.ndarray:
    """Return each condition's mean, every dimension in units of its standard deviation within conditions.

    In principal components as they are, the one or two that vary most decide every similarity.

    Parameters
    ----------
    cells
        float [n, d].
    labels
        Condition of each cell.
    conditions
        Those wanted, with all cells' labels among them.

    Returns
    -------
    numpy.ndarray
        float64 [n_conditions, d]; 0 in a dimension without variance within conditions.
    """
    place = {name: i for i, name in enumerate(conditions)}
    means = np.array([cells[labels == name].mean(axis=0, dtype=np.float64) for name in conditions])
    within = (cells - means[[place[name] for name in labels]]).std(axis=0)
    return np.divide(means, within, out=np.zeros_like(means), where=within > 0)


def similarity(profiles: np.ndarray) -> np.ndarray:
    """Return float64 [n_conditions, n_conditions]: cosine of the conditions' differences from the mean condition.

    From the mean of all conditions and not from control: what every perturbation shares, and the noise of one control
    mean, would make all look alike.
    """
    change = profiles - profiles.mean(axis=0)
    length = np.linalg.norm(change, axis=1, keepdims=True)
    unit = np.divide(change, length, out=np.zeros_like(change), where=length > 0)
    result: np.ndarray = unit @ unit.T
    return result
