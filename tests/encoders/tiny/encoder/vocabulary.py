"""The genes it knows: those of scGPT without the last third of the alphabet, so that some are missing."""

from reverse_perturbation.config import Params, Section
from reverse_perturbation.models.scgpt.encoder.vocabulary import default_vocabulary


class Config(Section):
    """Section ``tiny``."""

    width: int = 8


def read_vocabulary(params: Params) -> dict[str, int]:
    """Return gene symbol -> token id."""
    names = sorted(name for name in default_vocabulary() if "A" <= name[0] < "S")
    return {name: i for i, name in enumerate(names)}
