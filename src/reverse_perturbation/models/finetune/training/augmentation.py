"""Training cells resampled in each epoch: mixed within their condition, thinned, with tokens left out."""

from collections.abc import Callable

import numpy as np

from reverse_perturbation.data.screen.masked_screen import MaskedScreen
from reverse_perturbation.models.encoder.interface import Tokenizer
from reverse_perturbation.models.encoder.tokens import Tokens
from reverse_perturbation.models.recipe.resample import mix, thin
from reverse_perturbation.sections import Augmentation


def resampler(
    screen: MaskedScreen, rows: np.ndarray, tokenize: Tokenizer, config: Augmentation
) -> Callable[[np.random.Generator], Tokens] | None:
    """Return a function that draws the tokens of synthetic cells, one for each of ``rows``; None without resampling."""
    if not config.resamples:
        return None

    def draw(rng: np.random.Generator) -> Tokens:
        tokens = tokenize(thin(mix(screen, rows, config.mixing, rng), config.thinning, rng))
        return tokens.only(rng.random(len(tokens.ids)) >= config.token_dropout) if config.token_dropout else tokens

    return draw
