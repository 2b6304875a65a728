"""Network of one hidden layer on expression and depth, trained as fine-tuning trains; dropout and epochs chosen."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from pydantic import Field
from scipy.special import log_softmax
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.optim import AdamW

from reverse_perturbation.data.screen.masked_screen import MaskedScreen
from reverse_perturbation.errors import InputError
from reverse_perturbation.models.linear.features import Features, features
from reverse_perturbation.models.ranker import Folds, Ranker, held_out
from reverse_perturbation.models.recipe.resample import mix
from reverse_perturbation.models.recipe.schedule import make_schedule
from reverse_perturbation.retrieval.predictions import Predictions
from reverse_perturbation.sections import Count, Dropout, NotNegative, Positive, Section, Seed
from reverse_perturbation.storage import save_weights

KIND: Features = "log1p_depth"
CLIP_NORM = 1.0  # as finetune.optimizer.clip_norm
CELLS = 1024  # made dense at a time in prediction


class Config(Section):
    """Section ``mlp``."""

    width: Count
    dropout: Annotated[list[Dropout], Field(min_length=1)]
    mixing: Count
    label_smoothing: Dropout
    epochs: Count
    batch_size: Count
    learning_rate: Positive
    weight_decay: NotNegative
    warmup_fraction: Dropout
    seeds: Annotated[list[Seed], Field(min_length=1)]


class Baseline(Ranker):
    """Networks that differ in their seed, log-probabilities averaged: what scGPT's training is worth without scGPT."""

    def select(self, screen: MaskedScreen, folds: Folds) -> None:
        """Train with each dropout; keep the one, and the number of epochs, of least cross-entropy."""
        rows = []
        for dropout in self.config.dropout:
            curve = self._curve(screen, folds, dropout)
            epochs = int(curve["cross_entropy"].idxmin())
            found = curve.loc[epochs]
            rows.append({"dropout": dropout, "epochs": epochs} | found.to_dict())
            print(
                f"{self.name}: dropout {dropout:g}, {epochs} epochs: held out cross-entropy "
                f"{found['cross_entropy']:.4f}, mrr {found['mrr']:.4f}",
                flush=True,
            )
        self.choices = pd.DataFrame(rows)
        best = min(rows, key=lambda row: row["cross_entropy"])
        self.dropout, self.epochs = best["dropout"], best["epochs"]

    def fit(self, screen: MaskedScreen, rows: np.ndarray) -> None:
        """Train a network with each seed for the chosen number of epochs."""
        self.conditions = _classes(screen, rows)
        self.networks: list[nn.Sequential] = []
        for seed in self.config.seeds:
            *_, trained = self._train(screen, rows, self.dropout, seed, self.epochs)
            self.networks.append(trained)

    def predict(self, screen: MaskedScreen) -> Predictions:
        """Return log-probabilities of the conditions."""
        x = features(screen, KIND)
        mean = np.mean([log_probabilities(network, x) for network in self.networks], axis=0)
        return Predictions(screen.cell_ids, log_softmax(mean, axis=1), self.conditions, None)

    def save(self, folder: str | Path, screen: MaskedScreen) -> None:
        """Write the weights of all networks and what they belong to."""
        weights = {
            f"{seed}.{name}": tensor.numpy()
            for seed, network in zip(self.config.seeds, self.networks, strict=True)
            for name, tensor in network.state_dict().items()
        }
        chosen = {"features": KIND, "dropout": self.dropout, "epochs": self.epochs}
        save_weights(folder, weights, chosen | {"conditions": list(self.conditions), "genes": list(screen.genes)})

    def _curve(self, screen: MaskedScreen, folds: Folds, dropout: float) -> pd.DataFrame:
        """Return the figures of the cells held out in all folds, a row an epoch; of the first seed."""
        curve = pd.DataFrame(0.0, range(1, self.config.epochs + 1), ["cross_entropy", "exact_hit@1", "mrr"])
        for train, held in folds:
            x, labels, conditions = features(screen.take(held), KIND), screen.conditions[held], _classes(screen, train)
            networks = self._train(screen, train, dropout, self.config.seeds[0], self.config.epochs)
            for epoch, network in enumerate(networks, start=1):
                found = held_out([(log_probabilities(network, x), conditions, labels)])
                curve.loc[epoch] += len(held) * pd.Series(found)
        return curve / sum(len(held) for _, held in folds)

    def _train(
        self, screen: MaskedScreen, rows: np.ndarray, dropout: float, seed: int, epochs: int
    ) -> Iterator[nn.Sequential]:
        """Train a network and yield it after each epoch, to be read before the next.

        The learning rate follows one curve over ``config.epochs`` whatever ``epochs`` is, so a fit repeats the first
        epochs of the choice.
        """
        config, rng = self.config, np.random.default_rng(seed)
        conditions, targets = np.unique(screen.conditions[rows].astype(str), return_inverse=True)
        if len(conditions) < 2:
            raise InputError(f"{self.name} needs cells of at least two conditions, found {len(conditions)}")
        torch.manual_seed(seed)
        x, wanted = features(screen.take(rows), KIND), torch.from_numpy(targets)
        hidden = nn.Linear(x.shape[1], config.width)
        network = nn.Sequential(hidden, nn.ReLU(), nn.Dropout(dropout), nn.Linear(config.width, len(conditions)))
        # Features without a value have no gradient: from 0 they stay there, and are no noise in cells that have them.
        hidden.weight.data[:, x.getnnz(axis=0) == 0] = 0
        optimizer = AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
        steps = math.ceil(len(rows) / config.batch_size)
        schedule = make_schedule(optimizer, steps * config.epochs, config.warmup_fraction)
        for _ in range(epochs):
            network.train()
            x, order = features(mix(screen, rows, config.mixing, rng), KIND), rng.permutation(len(rows))
            for first in range(0, len(rows), config.batch_size):
                batch = order[first : first + config.batch_size]
                optimizer.zero_grad(set_to_none=True)
                logits = network(_dense(x[batch]))
                loss = cross_entropy(logits, wanted[batch], label_smoothing=config.label_smoothing)
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(network.parameters(), CLIP_NORM)
                optimizer.step()
                schedule.step()
            yield network.eval()


@torch.no_grad()
def log_probabilities(network: nn.Sequential, x: sp.csr_matrix) -> np.ndarray:
    """Return float64 [n, n_conditions]; computed in float64, so that the cells beside it do not change a cell's."""
    weights = {name: tensor.double() for name, tensor in network.state_dict().items()}
    parts = [
        functional_call(network, weights, _dense(x[first : first + CELLS]).double())
        for first in range(0, x.shape[0], CELLS)
    ]
    result: np.ndarray = torch.cat(parts).log_softmax(dim=1).numpy()
    return result


def _dense(x: sp.csr_matrix) -> Tensor:
    return torch.from_numpy(x.toarray())


def _classes(screen: MaskedScreen, rows: np.ndarray) -> np.ndarray:
    return np.unique(screen.conditions[rows].astype(str)).astype(object)
