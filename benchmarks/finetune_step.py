"""Time steps of fine-tuning with the lower layers frozen, cached against computed again, side by side; print a table.

    OMP_NUM_THREADS=1 python benchmarks/finetune_step.py             # small backbones, and 12 layers of width 512
    OMP_NUM_THREADS=1 python benchmarks/finetune_step.py --small     # the small ones alone, two minutes

The plain loop is what one would write with PyTorch: cells in random order, the whole backbone in every step, gradients
for its last layers. This project's loop is ``train.fit`` on frozen states that were computed once, which took the
seconds in the table. Both train the same weights with the same optimizer. The share of the machine's matrix rate counts
the products on real tokens: forward through all layers or through the trained ones, backward, twice that, through the
trained ones. How far the cached states, in float16, move the first scores is in the last column; with float32 they are
the same (tests/models/finetune/inference/test_cache.py).
"""

import argparse
import copy
import statistics
import sys
import tempfile
import time
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from accelerate import Accelerator
from embed import tokens_of, write_checkpoint
from machine import cells_like_norman, finetune_config, machine, matrix_rate, operations
from timing import in_turn, rates
from torch.nn.functional import cross_entropy

from reverse_perturbation.models.encoder.tokens import TokenSource
from reverse_perturbation.models.finetune.inference.cache import cached
from reverse_perturbation.models.finetune.network.classifier import EncoderClassifier
from reverse_perturbation.models.finetune.training.train import TrainingData, fit, make_optimizer
from reverse_perturbation.report.markdown import markdown
from reverse_perturbation.sections import Finetune

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Case:
    """A backbone, how many of its last layers are trained, how many cells there are and how many a step takes."""

    layers: int
    width: int
    heads: int
    trained: int
    cells: int
    batch: int


SMALL = [Case(2, 64, 4, 1, 512, 64), Case(4, 64, 4, 2, 512, 64)]  # of two layers the last two leave none to freeze
LARGE = Case(12, 512, 8, 2, 32, 16)


def plain(model: EncoderClassifier, data: TrainingData, config: Finetune) -> None:
    """Train an epoch."""
    model = copy.deepcopy(model).train()
    optimizer = make_optimizer(model)
    order = np.random.default_rng(0).permutation(data.train)
    for start in range(0, len(order), config.sampler.batch_size):
        rows = order[start : start + config.sampler.batch_size]
        loss = cross_entropy(model(data.tokens.batch(rows)).logits, torch.from_numpy(data.targets[rows]))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip_norm)
        optimizer.step()


def ours(model: EncoderClassifier, data: TrainingData, config: Finetune) -> None:
    """Train an epoch."""
    fit(copy.deepcopy(model), data, config, seed=0, epochs=1, accelerator=Accelerator(cpu=True))


def first_scores(model: EncoderClassifier, tokens: TokenSource) -> torch.Tensor:
    """Return the logits of some cells before training."""
    with torch.inference_mode():
        logits = model.eval()(tokens.batch(np.arange(min(16, len(tokens.lengths))))).logits
    assert logits is not None
    return logits


def measured(case: Case, repeats: int) -> list[dict[str, object]]:
    """Return the rows of a backbone."""
    cells = cells_like_norman(case.cells)
    names, targets = np.unique(cells.obs["condition"].astype(str), return_inverse=True)
    config = finetune_config(
        adaptation={"mode": "last_n", "last_layers": case.trained},
        sampler={"batch_size": case.batch},
        augmentation={"mixing": 1},
        schedule={"epochs": 1},
    )
    with tempfile.TemporaryDirectory() as folder:
        genes = cells.var_names.to_numpy(dtype=object)
        checkpoint = write_checkpoint(f"{folder}/checkpoint", genes, case.layers, case.width, case.heads)
        tokens = tokens_of(cells, checkpoint)
        model = EncoderClassifier(checkpoint.backbone, torch.arange(len(genes)), len(names), config)
        start = time.perf_counter()
        with redirect_stdout(sys.stderr):
            states = cached(model, tokens, folder=f"{folder}/cache", checkpoint_sha256=checkpoint.sha256, device=CPU)
        taken = time.perf_counter() - start
        everything, ids = np.arange(case.cells), cells.obs_names.to_numpy(dtype=object)
        data = partial(
            TrainingData, ids, targets=targets, conditions=list(names), train=everything, validation=everything[:0]
        )
        calls = {
            "plain PyTorch": partial(plain, model, data(tokens=tokens), config),
            "this project": partial(ours, model, data(tokens=states), config),
        }
        seconds, _ = in_turn(calls, repeats)
        moved = (first_scores(model, states) - first_scores(model, tokens)).abs().max().item()
    steps, middle = -(-case.cells // case.batch), {name: statistics.median(each) for name, each in seconds.items()}
    rate = matrix_rate(torch.float32, case.width)
    encoder, trained, forward = (
        operations(tokens.lengths, replace(checkpoint.architecture, layers=n)) for n in (0, case.trained, case.layers)
    )
    trained -= encoder  # of values, below all layers
    work = {"plain PyTorch": forward + 2 * trained, "this project": 3 * trained}
    genes_of_a_cell = f"{tokens.lengths.mean():.0f} genes"
    about = f"{case.layers} x {case.width}, last {case.trained} trained, {case.batch} cells of {genes_of_a_cell}"
    return [
        {"backbone, step": about, "loop": name}
        | rates(steps, each)
        | {"over plain": middle["plain PyTorch"] / middle[name]}
        | {"share of the matrix rate": work[name] / middle[name] / rate}
        | ({"states, s": taken, "scores moved": f"{moved:.1e}"} if name == "this project" else {})
        for name, each in seconds.items()
    ]


def main() -> None:
    """Simulate, train, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="the small backbones alone")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    print(f"{machine()}\n\nSimulated cells; steps a second, in an epoch of all cells\n")
    rows = [row for case in SMALL + ([] if args.small else [LARGE]) for row in measured(case, args.repeats)]
    print(markdown(rows))


if __name__ == "__main__":
    main()
