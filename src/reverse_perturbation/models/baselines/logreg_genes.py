"""Logistic regression whose conditions share weights through their genes; chosen as logreg is.

A double perturbation is then near the sum of its singles unless its cells say otherwise. Where no two conditions share
a gene it is logreg.
"""

from typing import Annotated

from pydantic import Field

from reverse_perturbation.models.linear.baseline import TunedBaseline, TunedConfig
from reverse_perturbation.sections import Positive


class Config(TunedConfig):
    """Section ``logreg_genes``."""

    gene_share: Annotated[list[Positive], Field(min_length=1)]


class Baseline(TunedBaseline):
    """Weights of conditions covary as ``linear.logreg.covariance`` says."""

    def gene_shares(self) -> list[float]:
        """Return the section's."""
        values: list[float] = self.config.gene_share
        return values
