"""The headline tests: every model that training has a part in against logreg and against the strongest baseline."""

from collections.abc import Mapping, Sequence
from typing import Any

from statsmodels.stats.multitest import multipletests

from reverse_perturbation.comparison.significance import Differences, bootstrap
from reverse_perturbation.sections import Compare

METRIC = "mrr"  # the one metric of the family
LEVEL = 0.05
Pair = tuple[str, str]  # a model, and the baseline it is compared with


def headline(
    splits: Mapping[Pair, Sequence[Differences]], base: Mapping[Pair, float], config: Compare, margin: float
) -> dict[str, dict[str, Any]]:
    """Test a declared family of gaps in mrr, with Holm's correction over the family.

    Parameters
    ----------
    splits
        For each pair the differences of its queries, one entry a split.
    base
        For each pair the baseline's mrr.
    config
        Of the bootstrap.
    margin
        Share of the baseline's mrr within which a gap counts as none.

    Returns
    -------
    dict
        Model -> baseline -> ``gap``, ``low`` and ``high`` (95 %), ``low_with_seeds`` and ``high_with_seeds`` (training
        seeds resampled too; absent for an ensemble), ``p``, ``p_holm`` and ``finding``: ``ahead`` or ``behind`` (the
        corrected p is below 0.05), else ``equivalent`` (two one-sided tests at 5 % show the gap within the margin),
        else ``open``.
    """
    gaps = {pair: bootstrap(of_pair, **config.model_dump()) for pair, of_pair in splits.items()}
    _, corrected, *_ = multipletests([gap.p for gap in gaps.values()], alpha=LEVEL, method="holm")
    found: dict[str, dict[str, Any]] = {}
    for (pair, gap), p_holm in zip(gaps.items(), corrected.tolist(), strict=True):
        model, baseline = pair
        finding = "equivalent" if gap.equivalent(margin * base[pair]) else "open"
        if p_holm < LEVEL:
            finding = "ahead" if gap.mean > 0 else "behind"
        row: dict[str, Any] = {"gap": gap.mean, "low": gap.low, "high": gap.high}
        if all(len(split.values) > 1 for split in splits[pair]):
            both = bootstrap(splits[pair], **config.model_dump(), seeds=True)
            row |= {"low_with_seeds": both.low, "high_with_seeds": both.high}
        found.setdefault(model, {})[baseline] = row | {"p": gap.p, "p_holm": p_holm, "finding": finding}
    return found
