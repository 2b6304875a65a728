"""A tuned logistic regression: chosen on validation cells, and fitted again as it was chosen."""

from dataclasses import replace

import numpy as np
import pytest

from reverse_perturbation.models.linear.baseline import TunedBaseline, TunedConfig
from reverse_perturbation.models.linear.logreg import LogisticRegression

CONFIG = TunedConfig(scaling=["none", "max_abs"], c=[30.0, 0.0003, 0.03], max_iter=500)


@pytest.fixture
def chosen(screen) -> TunedBaseline:
    baseline = TunedBaseline(CONFIG)
    baseline.select(screen, screen.rows("reference"), screen.rows("validation"))
    return baseline


def test_every_configuration_is_tried_and_the_one_of_least_cross_entropy_is_chosen(chosen):
    table = chosen.choices
    assert table[["scaling", "c"]].to_numpy().tolist() == [
        [scaling, c] for scaling in ("none", "max_abs") for c in (0.0003, 0.03, 30.0)
    ]
    best = table.loc[table["cross_entropy"].idxmin()]
    assert (chosen.model.scaling, chosen.model.c) == (best["scaling"], best["c"])


def test_validation_labels_decide_the_choice(chosen, screen):
    """Where they say nothing of the cells, the strongest penalty does the least harm."""
    assert chosen.model.c > 0.0003
    rows, conditions = screen.rows("validation"), screen.conditions.copy()
    conditions[rows] = np.roll(conditions[rows], 1)
    other = TunedBaseline(CONFIG)
    other.select(replace(screen, conditions=conditions), screen.rows("reference"), rows)
    assert other.model.c == 0.0003


def test_the_final_fit_keeps_the_choice_and_ends_where_a_cold_fit_does(chosen, screen, monkeypatch):
    starts = []
    fit = LogisticRegression.fit

    def spy(model, reference, labels, start=None):
        starts.append(start)
        return fit(model, reference, labels, start)

    monkeypatch.setattr(LogisticRegression, "fit", spy)
    selected, rows = chosen.model, screen.rows("reference", "validation")
    before = selected.log_proba(screen.log1p())
    chosen.fit(screen, rows)
    assert starts == [selected], "a warm start"
    assert (chosen.model.scaling, chosen.model.c) == (selected.scaling, selected.c)
    cold = LogisticRegression(selected.scaling, selected.c, 500).fit(screen.log1p()[rows], screen.conditions[rows])
    found = chosen.predict(screen).log_proba
    assert found == pytest.approx(cold.log_proba(screen.log1p()), abs=0.01)
    assert np.abs(found - before).max() > 0.02
    assert (selected.log_proba(screen.log1p()) == before).all(), "the selection fit stays as it is"


def test_it_is_saved_as_a_logistic_regression_of_its_genes(chosen, screen, tmp_path):
    chosen.save(tmp_path / "m", screen)
    loaded = LogisticRegression.load(tmp_path / "m")
    assert loaded.genes == list(screen.genes)
    assert (loaded.log_proba(screen.log1p()) == chosen.predict(screen).log_proba).all()
