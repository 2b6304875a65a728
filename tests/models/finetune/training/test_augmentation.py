"""Training cells resampled in each epoch: each option changes their tokens."""

import numpy as np
import pytest

from reverse_perturbation.models.encoder.tokens import Tokens
from reverse_perturbation.models.finetune.training.augmentation import resampler
from reverse_perturbation.sections import Augmentation
from tests.models.recipe.test_resample import SCREEN, deep


def as_tokens(screen) -> Tokens:
    """Each count a token, its gene the id."""
    return Tokens(
        screen.counts.indices.astype(np.int32), screen.counts.data, screen.counts.indptr.astype(np.int64), 97, 98, -2
    )


def test_tokens_are_left_out_of_each_cell():
    config = Augmentation(mixing=1, thinning=0.0, token_dropout=0.25)
    draw = resampler(deep(4000), np.arange(100, 4000), as_tokens, config)
    tokens = draw(np.random.default_rng(0))
    assert len(tokens.lengths) == 3900
    assert set(tokens.lengths) == {0, 1, 2, 3}
    assert abs(tokens.lengths.mean() / 3 - 0.75) < 5 * np.sqrt(0.75 * 0.25 / (3 * 3900))
    for row in range(50):
        ids, values = (x[tokens.offsets[row] : tokens.offsets[row + 1]] for x in (tokens.ids, tokens.values))
        assert dict(zip(ids, values, strict=True)).items() <= {0: 1000.0, 2: 4000.0, 5: 1.0}.items()
    assert not np.array_equal(tokens.ids, draw(np.random.default_rng(1)).ids)


@pytest.mark.parametrize("change", [{"mixing": 2}, {"thinning": 0.5}, {"token_dropout": 0.5}])
def test_each_option_changes_the_cells_and_none_leaves_them_alone(change):
    none = {"mixing": 1, "thinning": 0.0, "token_dropout": 0.0}
    rows = np.arange(5)
    assert resampler(SCREEN, rows, as_tokens, Augmentation(**none)) is None
    draw = resampler(SCREEN, rows, as_tokens, Augmentation(**none | change))
    first, again, other = (draw(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first.values, again.values)
    assert not np.array_equal(first.values, other.values)
