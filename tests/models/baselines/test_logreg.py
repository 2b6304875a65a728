"""The specification's baseline: tuned on expression alone."""

from dataclasses import replace

from reverse_perturbation.models.baselines.logreg import Baseline, Config
from reverse_perturbation.models.linear.logreg import tune


def test_it_is_the_tuned_logistic_regression_on_log1p_expression(screen):
    baseline = Baseline(Config(scaling=["none", "max_abs"], c=[0.1, 1.0], max_iter=500))
    reference, validation = screen.rows("reference"), screen.rows("validation")
    baseline.select(screen, reference, validation)
    x, y = screen.log1p(), screen.conditions
    model, table = tune(
        x[reference], y[reference], x[validation], y[validation],
        scalings=["none", "max_abs"], cs=[0.1, 1.0], max_iter=500, name="logreg",
    )  # fmt: skip
    found = baseline.predict(screen)
    assert (found.log_proba == model.log_proba(x)).all()
    assert found.embedding is None
    assert baseline.choices.equals(table)
    assert baseline.columns(screen) == list(screen.genes)


def test_depth_alone_changes_nothing(screen):
    """Twice the counts at twice the depth are the same expression."""
    baseline = Baseline(Config(scaling=["none"], c=[1.0], max_iter=500))
    baseline.select(screen, screen.rows("reference"), screen.rows("validation"))
    deeper = replace(screen, counts=2 * screen.counts, totals=2 * screen.totals)
    assert (baseline.predict(deeper).log_proba == baseline.predict(screen).log_proba).all()
