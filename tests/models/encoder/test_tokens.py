"""Cells end to end, taken apart and padded."""

import numpy as np
import pytest
import torch

from reverse_perturbation.models.encoder.tokens import DeviceTokens, Tokens


def tokens_of(*cells: dict[int, float]) -> Tokens:
    return Tokens(
        ids=np.array([token for cell in cells for token in cell], dtype=np.int32),
        values=np.array([value for cell in cells for value in cell.values()], dtype=np.float32),
        offsets=np.cumsum([0, *map(len, cells)]),
        cls_id=101,
        pad_id=100,
        pad_value=-2,
    )


def cell(tokens: Tokens, row: int) -> dict[int, float]:
    part = slice(tokens.offsets[row], tokens.offsets[row + 1])
    return dict(zip(tokens.ids[part].tolist(), tokens.values[part].tolist(), strict=True))


def test_a_batch_has_cls_first_and_padding_last():
    batch = tokens_of({1: 3.0, 2: 1.0}, {2: 2.0}).batch(np.array([1, 0]))
    ids, values, padding = batch.ids, batch.values, batch.padding
    assert ids.tolist() == [[101, 2, 100], [101, 1, 2]]
    assert padding.tolist() == [[False, False, True], [False, False, False]]
    assert values.tolist() == [[-2, 2, -2], [-2, 3, 1]]


def test_an_empty_batch_cell_is_cls_alone():
    batch = tokens_of({}).batch(np.array([0]))
    ids, padding = batch.ids, batch.padding
    assert ids.tolist() == [[101]]
    assert not padding.any()


def test_take_keeps_cells_together():
    tokens = tokens_of({0: 1.0, 2: 2.0}, {1: 5.0}, {}, {0: 3.0, 1: 1.0, 2: 1.5})
    taken = tokens.take(np.array([3, 2, 0]))
    assert [cell(taken, i) for i in range(3)] == [cell(tokens, i) for i in (3, 2, 0)]


def test_only_leaves_out_tokens_and_keeps_every_cell():
    tokens = tokens_of({0: 1.0, 2: 2.0}, {1: 5.0}, {}, {0: 3.0, 1: 1.0})
    some = tokens.only(np.array([False, True, False, True, True]))
    assert [cell(some, i) for i in range(4)] == [{2: 2.0}, {}, {}, {0: 3.0, 1: 1.0}]


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [3, 0], [2], [1, 2]])
def test_a_device_makes_the_same_batches(rows):
    tokens = tokens_of({0: 1.0, 2: 2.0}, {1: 5.0}, {}, {0: 3.0, 1: 1.0, 2: 1.5})
    here = tokens.batch(np.array(rows))
    there = DeviceTokens(tokens, torch.device("cpu")).batch(np.array(rows))
    for name in ("ids", "values", "padding"):
        wanted, found = getattr(here, name), getattr(there, name)
        assert torch.equal(wanted, found), name
        assert wanted.dtype == found.dtype, name


def test_a_device_makes_batches_of_cells_without_genes():
    batch = DeviceTokens(tokens_of({}, {}), torch.device("cpu")).batch(np.array([1, 0]))
    assert batch.ids.tolist() == [[101], [101]]
    assert batch.values.tolist() == [[-2], [-2]]
    assert not batch.padding.any()
