"""Time tokens and bins against upstream's two ways to them, side by side, check that they agree, and print a table.

    OMP_NUM_THREADS=1 python benchmarks/tokens.py            # half a minute, on one core

From counts to the padded tensors a model is called with. Upstream's first way is that of ``scgpt.tasks.embed_data``:
its data set and collator, here with a model that computes nothing. The second is that of upstream's tutorials:
``Preprocessor``, then ``tokenize_and_pad_batch``. Upstream starts a worker process for every core it may use, this
project bins in one process; both are held to one core.

Upstream draws a value that ties with edges at random among their bins. That this project's ``binned`` is the middle of
the lowest and the highest draw is checked for every value, and so is which gene it is of.
"""

import argparse
import logging
import os
import statistics
import warnings
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import get_args
from unittest.mock import patch

import numpy as np
import torch
from anndata import AnnData
from machine import cells_like_norman, machine
from timing import in_turn, rates

from reverse_perturbation.config import load_params
from reverse_perturbation.data.screen.mask import depths
from reverse_perturbation.data.screen.normalize import log1p_cp10k
from reverse_perturbation.models.encoder.batches import batches_by_length
from reverse_perturbation.models.encoder.tokens import Tokens
from reverse_perturbation.models.scgpt.encoder.tokenize import tokenize
from reverse_perturbation.models.scgpt.pretrain import small_vocabulary
from reverse_perturbation.report.markdown import markdown
from reverse_perturbation.sections import ValueInput

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from scgpt.preprocess import Preprocessor
    from scgpt.tasks.cell_emb import get_batch_cell_embeddings
    from scgpt.tokenizer import GeneVocab, tokenize_and_pad_batch

BINS, PAD_VALUE, BATCH, LONGEST = 51, -2, 64, 1200
CONFIG = load_params().scgpt
SETTINGS = {"pad_token": "<pad>", "pad_value": PAD_VALUE, "embsize": 1}


class Receiver(torch.nn.Module):
    """Takes what scGPT would be given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.batches: list[tuple[np.ndarray, np.ndarray]] = []

    def _encode(self, ids: torch.Tensor, values: torch.Tensor, **_: object) -> torch.Tensor:
        self.batches.append((ids.numpy(), values.numpy()))
        return torch.ones(*ids.shape, 1)


def ours(cells: AnnData, vocabulary: dict[str, int], value_input: ValueInput) -> Tokens:
    """Tokenise all cells and make batches of similar length."""
    counts, totals = cells.layers["counts"], depths(cells)
    tokens = tokenize(
        counts,
        totals,
        token_ids=np.array([vocabulary[gene] for gene in cells.var_names]),
        cell_ids=cells.obs_names.to_numpy(dtype=object),
        config=CONFIG.model_copy(update={"value_input": value_input, "max_tokens": LONGEST}),
        n_bins=BINS,
        vocabulary=vocabulary,
        pad_value=PAD_VALUE,
    )
    for rows in batches_by_length(np.arange(len(tokens.lengths)), tokens.lengths, BATCH):
        tokens.batch(rows)
    return tokens


def embed_data(cells: AnnData, vocabulary: dict[str, int]) -> Receiver:
    """Go the way of ``scgpt.tasks.embed_data`` as far as the model."""
    receiver = Receiver()
    ids = np.array([vocabulary[gene] for gene in cells.var_names])
    # What it is given is log1p, as this project bins; the bins of counts are the same but for rounding.
    told = SimpleNamespace(X=log1p_cp10k(cells.layers["counts"], depths(cells)))
    with warnings.catch_warnings(), patch("scgpt.tasks.cell_emb.tqdm", lambda batches, **_: batches):
        warnings.simplefilter("ignore")
        get_batch_cell_embeddings(
            told, model=receiver, vocab=vocabulary, max_length=LONGEST + 1, batch_size=BATCH, model_configs=SETTINGS,
            gene_ids=ids,
        )  # fmt: skip
    return receiver


def tutorial(cells: AnnData, vocabulary: dict[str, int]) -> None:
    """Go the way of upstream's tutorials."""
    told = AnnData(cells.layers["counts"].copy(), var=cells.var[[]])
    Preprocessor(use_key="X", normalize_total=1e4, log1p=True, binning=BINS)(told)
    tokenize_and_pad_batch(
        told.layers["X_binned"],
        np.array([vocabulary[gene] for gene in cells.var_names]),
        max_len=LONGEST + 1,
        vocab=GeneVocab.from_dict(vocabulary),
        pad_token="<pad>",
        pad_value=PAD_VALUE,
        append_cls=True,
        include_zero_gene=False,
    )


def check(cells: AnnData, vocabulary: dict[str, int]) -> str:
    """Return how the two agree, for every value of cells with no more genes than a cell may bring.

    Upstream's draws lie between those from the random numbers 0, the highest, and almost 1.
    """
    found, draws = ours(cells, vocabulary, "binned"), []
    for number in (0.0, 1.0 - 1e-9):
        with patch("numpy.random.rand", partial(np.full, fill_value=number)):
            draws.append(embed_data(cells, vocabulary).batches)
    rows = np.flatnonzero(found.lengths <= LONGEST)
    same = single = total = 0
    for row in rows:
        part = slice(found.offsets[row], found.offsets[row + 1])
        (ids, high), (_, low) = [[each[row % BATCH] for each in batches[row // BATCH]] for batches in draws]
        genes = slice(1, 1 + found.lengths[row])
        equal = (found.ids[part] == ids[genes]) & (found.values[part] == (low[genes] + high[genes]) / 2)
        same, single, total = same + equal.sum(), single + (low == high)[genes].sum(), total + len(equal)
    return (
        f"{same:,} of {total:,} values of {len(rows):,} cells are of the same gene and in the middle of upstream's "
        f"draws; for {single:,} of them upstream leaves nothing to draw"
    )


def main() -> None:
    """Simulate, time, check, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    logging.getLogger("scGPT").setLevel(logging.WARNING)
    cells = cells_like_norman(args.cells)
    vocabulary = small_vocabulary(cells.var_names.to_numpy(dtype=object))
    calls: dict[str, Callable[[], object]] = {
        "scgpt.tasks.embed_data": partial(embed_data, cells, vocabulary),
        "scgpt.preprocess, scgpt.tokenizer": partial(tutorial, cells, vocabulary),
    }
    for kind in get_args(ValueInput):
        calls[f"this project, {kind}"] = partial(ours, cells, vocabulary, kind)
    print(f"{machine()}\n\n{args.cells:,} simulated cells x {cells.n_vars:,} genes, ", end="")
    print(f"{np.diff(cells.layers['counts'].indptr).mean():.0f} expressed in a cell; cells a second\n")
    seconds, _ = in_turn(calls, args.repeats)
    middle = {name: statistics.median(each) for name, each in seconds.items()}
    first, second = list(middle.values())[:2]
    rows = [
        {"way": name}
        | rates(args.cells, each)
        | {"over embed_data": first / middle[name], "over preprocess": second / middle[name]}
        for name, each in seconds.items()
    ]
    print(markdown(rows, decimals=1))
    print(f"\n{check(cells, vocabulary)}.")


if __name__ == "__main__":
    main()
