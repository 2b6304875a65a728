"""A network on expression and depth: its epochs and dropout by the cells held out, its seeds averaged."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from safetensors.numpy import load_file
from scipy.special import log_softmax

from reverse_perturbation.errors import InputError
from reverse_perturbation.models.baselines.mlp import Baseline, Config, log_probabilities
from reverse_perturbation.models.linear.features import features
from reverse_perturbation.models.ranker import cross_validate, held_out
from reverse_perturbation.models.recipe.schedule import make_schedule
from tests.models.test_ranker import fit_once, known_folds

SETTINGS = {
    "width": 16,
    "dropout": [0.2, 0.5],
    "mixing": 2,
    "label_smoothing": 0.1,
    "epochs": 6,
    "batch_size": 8,
    "learning_rate": 0.02,
    "weight_decay": 0.1,
    "warmup_fraction": 0.1,
    "seeds": [0, 1],
}


def baseline(epochs: int = 6, dropout: float = 0.2, **changes) -> Baseline:
    """Its choices made already."""
    ranker = Baseline(Config(**SETTINGS | changes))
    ranker.dropout, ranker.epochs = dropout, epochs
    return ranker


def fitted(screen, *parts, **changes) -> np.ndarray:
    ranker = baseline(**changes)
    ranker.fit(screen, screen.rows(*(parts or ["reference"])))
    return ranker.predict(screen).log_proba


def hits(found, screen) -> float:
    best = found.conditions[found.log_proba.argmax(axis=1)]
    return float((best == screen.conditions)[screen.rows("query")].mean())


def test_it_learns_what_an_untrained_network_does_not_know(screen):
    trained, untrained = baseline(), baseline(learning_rate=1e-9)
    for ranker in (trained, untrained):
        ranker.fit(screen, screen.rows("reference"))
    assert hits(trained.predict(screen), screen) > 0.9
    assert hits(untrained.predict(screen), screen) < 0.7
    query = screen.rows("query")
    found = trained.predict(screen)
    entropy = held_out([(found.log_proba[query], found.conditions, screen.conditions[query])])["cross_entropy"]
    assert entropy < np.log(3) - 0.5


def test_log_probabilities_of_the_seeds_are_averaged(screen):
    both = fitted(screen)
    single = [fitted(screen, seeds=[seed]) for seed in (0, 1)]
    assert np.abs(single[0] - single[1]).max() > 0.01
    assert both == pytest.approx(log_softmax((single[0] + single[1]) / 2, axis=1), abs=1e-6)


def test_epochs_and_dropout_are_those_of_least_cross_entropy(screen, monkeypatch, capsys):
    curves = {0.2: [1.0, 0.6, 0.9], 0.5: [1.0, 0.8, 0.7]}

    def curve(self, screen, folds, dropout):
        found = pd.DataFrame({"cross_entropy": curves[dropout]}, range(1, 4))
        return found.assign(**{"exact_hit@1": found.index / 10, "mrr": found.index / 5})

    monkeypatch.setattr(Baseline, "_curve", curve)
    ranker = Baseline(Config(**SETTINGS))
    ranker.select(screen, known_folds(screen))
    assert (ranker.dropout, ranker.epochs) == (0.2, 2)
    assert ranker.choices.to_dict("list") == {
        "dropout": [0.2, 0.5],
        "epochs": [2, 3],
        "cross_entropy": [0.6, 0.7],
        "exact_hit@1": [0.2, 0.3],
        "mrr": [0.4, 0.6],
    }
    assert "dropout 0.5, 3 epochs: held out cross-entropy 0.7000, mrr 0.6000" in capsys.readouterr().out


def test_the_figures_of_a_choice_are_those_of_a_fit_of_as_many_epochs(screen):
    """The learning rates are on the curve of all epochs, and folds of any size count by their cells."""
    known = known_folds(screen)
    uneven = [known[0], (known[1][0], known[1][1][:7])]
    ranker = baseline(seeds=[1])
    curve = ranker._curve(screen, uneven, 0.2)
    for epochs in (1, 4, 6):
        found = cross_validate(baseline(epochs=epochs, seeds=[1]), screen, uneven)
        assert curve.loc[epochs].to_dict() == pytest.approx(found, abs=1e-5)


def test_the_learning_rates_are_those_of_scgpt(screen, monkeypatch):
    given = []

    def spy(optimizer, steps, warmup_fraction):
        given.append((optimizer.defaults["lr"], optimizer.defaults["weight_decay"], steps, warmup_fraction))
        return make_schedule(optimizer, steps, warmup_fraction)

    monkeypatch.setattr("reverse_perturbation.models.baselines.mlp.make_schedule", spy)
    fitted(screen, epochs=2, seeds=[0])
    assert given == [(0.02, 0.1, 9 * 6, 0.1)]  # 72 cells in batches of 8, six epochs though two are trained


@pytest.mark.parametrize(
    "change",
    [{"mixing": 1}, {"dropout": 0.0}, {"label_smoothing": 0.0}, {"weight_decay": 0.0}, {"epochs": 5}, {"width": 8}],
)
def test_every_part_of_the_recipe_matters(change, screen):
    assert np.abs(fitted(screen, seeds=[0], **change) - fitted(screen, seeds=[0])).max() > 1e-3


def test_cells_outside_the_rows_have_no_part_in_a_fit(screen):
    before = baseline()
    before.fit(screen, screen.rows("reference"))
    counts = screen.counts.toarray()
    others = screen.rows("validation", "query")
    counts[others] = 7
    labels = screen.conditions.copy()
    labels[others] = "Z+ctrl"
    changed = replace(screen, counts=sp.csr_matrix(counts), conditions=labels)
    after = baseline()
    after.fit(changed, screen.rows("reference"))
    for one, other in zip(before.networks, after.networks, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_gene_without_counts_in_training_means_nothing(screen):
    counts = screen.counts.toarray()
    counts[:, -1] = 0
    without = replace(screen, counts=sp.csr_matrix(counts))
    counts[screen.rows("query"), -1] = 9
    ranker = baseline()
    ranker.fit(without, screen.rows("reference"))
    expressed = ranker.predict(replace(screen, counts=sp.csr_matrix(counts)))
    assert expressed.log_proba == pytest.approx(ranker.predict(without).log_proba, abs=1e-6)


def test_fits_repeat_whatever_was_fitted_or_drawn_before(screen):
    first = fitted(screen)
    ranker = baseline()
    ranker.fit(screen, screen.rows("reference", "validation"))
    torch.rand(3)
    ranker.fit(screen, screen.rows("reference"))
    assert np.array_equal(ranker.predict(screen).log_proba, first)
    chosen = Baseline(Config(**SETTINGS))
    fit_once(chosen, screen)
    again = fitted(screen, epochs=chosen.epochs, dropout=chosen.dropout)
    assert np.array_equal(chosen.predict(screen).log_proba, again)


def test_a_cell_s_probabilities_do_not_depend_on_the_cells_beside_it(screen):
    ranker = baseline()
    ranker.fit(screen, screen.rows("reference"))
    x, network = features(screen, "log1p_depth"), ranker.networks[0]
    assert log_probabilities(network, x[[5]])[0] == pytest.approx(log_probabilities(network, x)[5], abs=1e-12)


def test_conditions_that_differ_in_depth_alone_are_told_apart(screen):
    """Counts in proportion to the depth: log1p of counts per ten thousand is the same for all cells."""
    deep = np.random.default_rng(0).random(120) < 0.5
    totals = np.where(deep, 4000, 1000).astype(np.float32)
    same = replace(
        screen,
        conditions=np.where(deep, "A+ctrl", "B+ctrl").astype(object),
        counts=sp.csr_matrix(totals[:, None] / 1000 * np.arange(1, 13, dtype=np.float32)),
        totals=totals,
    )
    ranker = baseline(mixing=1)
    ranker.fit(same, same.rows("reference"))
    assert hits(ranker.predict(same), same) == 1


def test_weights_of_every_network_are_saved(screen, tmp_path):
    ranker = baseline(seeds=[3, 5])
    ranker.fit(screen, screen.rows("reference"))
    ranker.save(tmp_path / "m", screen)
    weights = load_file(tmp_path / "m" / "weights.safetensors")
    x = features(screen, "log1p_depth").toarray()
    single = []
    for seed in (3, 5):
        hidden = np.maximum(x @ weights[f"{seed}.0.weight"].T + weights[f"{seed}.0.bias"], 0)
        single.append(log_softmax(hidden @ weights[f"{seed}.3.weight"].T + weights[f"{seed}.3.bias"], axis=1))
    assert ranker.predict(screen).log_proba == pytest.approx(log_softmax(np.mean(single, axis=0), axis=1), abs=1e-5)


def test_one_condition_is_an_error(screen):
    alone = replace(screen, conditions=np.full(120, "A+ctrl", dtype=object))
    with pytest.raises(InputError, match="mlp needs cells of at least two conditions, found 1"):
        baseline().fit(alone, alone.rows("reference"))
