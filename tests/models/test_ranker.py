"""What every baseline keeps to: which cells its fits read, what it predicts, what it writes."""

import json
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from reverse_perturbation.config import Params, known_baselines
from reverse_perturbation.data.folds import folds
from reverse_perturbation.data.screen.masked_screen import MaskedScreen
from reverse_perturbation.errors import InputError
from reverse_perturbation.models.ranker import Folds, Ranker, cross_validate, held_out, load_baseline
from reverse_perturbation.retrieval.predictions import Predictions
from tests.models.conftest import CONDITIONS, PARAMS

SEARCH = {"least": 0.03, "most": 3.0, "evaluations": 3}
SMALL = {
    "pca": {"components": 3},
    "logreg": {"c": SEARCH},
    "logreg_genes": {"c": SEARCH},
    "lda": {"shrinkage": [0.3, 0.7]},
}
TUNED = ["logreg", "logreg_genes"]
every_baseline = pytest.mark.parametrize("name", known_baselines())


def params_of(name: str, **changes) -> Params:
    """All of params.yaml with the section of a baseline changed; None leaves a key out."""
    section = {**PARAMS.model_dump()[name], **SMALL.get(name, {}), **changes}
    section = {key: value for key, value in section.items() if value is not None}
    return Params.model_validate(PARAMS.model_dump() | {name: section})


def baseline(name: str, **changes) -> Ranker:
    return load_baseline(name, params_of(name, **changes))


def with_nothing_to_choose(name: str) -> Ranker:
    """The baseline with one value of everything it tries several of."""
    section = PARAMS.model_dump()[name]
    one = {key: of[-1:] for key, of in section.items() if isinstance(of, list)}
    return baseline(name, **one, **({"c": SEARCH | {"most": SEARCH["least"]}} if "c" in section else {}))


def known_folds(screen: MaskedScreen) -> Folds:
    """Two folds of the known cells."""
    known = screen.rows("reference", "validation")
    return [(known[train], known[held]) for train, held in folds(screen.conditions[known], 2, 0)]


def with_its_choices(ranker: Ranker, screen: MaskedScreen) -> Ranker:
    ranker.select(screen, known_folds(screen))
    return ranker


def fit_once(ranker: Ranker, screen: MaskedScreen) -> Predictions:
    with_its_choices(ranker, screen).fit(screen, screen.rows("reference"))
    return ranker.predict(screen)


def fit_again(ranker: Ranker, screen: MaskedScreen) -> Predictions:
    ranker.fit(screen, screen.rows("reference", "validation"))
    return ranker.predict(screen)


def values(predictions: Predictions) -> np.ndarray:
    """Everything predicted, a row a cell."""
    parts = (predictions.log_proba, predictions.embedding)
    return np.hstack([part for part in parts if part is not None])


def relabelled(screen: MaskedScreen, *parts: str) -> MaskedScreen:
    """The same cells, those of some parts with one another's labels."""
    conditions, rows = screen.conditions.copy(), screen.rows(*parts)
    conditions[rows] = np.random.default_rng(0).permutation(conditions[rows])
    assert (conditions != screen.conditions).any()
    return replace(screen, conditions=conditions)


def marked(screen: MaskedScreen, in_queries: bool) -> MaskedScreen:
    """The last gene is expressed in validation cells of one condition and, on demand, in all query cells."""
    counts = screen.counts.toarray()
    counts[:, -1] = 0
    validation = screen.rows("validation")
    counts[validation[screen.conditions[validation] == CONDITIONS[0]], -1] = 9
    counts[screen.rows("query"), -1] = 9 * in_queries
    return replace(screen, counts=sp.csr_matrix(counts))


@every_baseline
def test_predictions_are_of_all_cells_in_their_order(name, screen):
    found = fit_once(baseline(name), screen)
    assert list(found.cell_ids) == list(screen.cell_ids)
    assert values(found).dtype == np.float32
    assert len(values(found)) == 120
    backwards = np.arange(120)[::-1]
    turned = replace(
        screen,
        **{key: getattr(screen, key)[backwards] for key in ("cell_ids", "conditions", "parts", "counts", "totals")},
    )
    ranker = baseline(name)
    fit_once(ranker, screen)
    assert values(ranker.predict(turned)) == pytest.approx(values(found)[backwards], abs=1e-6)


@every_baseline
def test_log_probabilities_sum_to_one_and_name_the_conditions(name, screen):
    ranker = baseline(name)
    for found in (fit_once(ranker, screen), fit_again(ranker, screen)):
        if found.log_proba is None:
            assert found.conditions is None
            continue
        assert list(found.conditions) == CONDITIONS
        assert np.exp(found.log_proba.astype(np.float64)).sum(axis=1) == pytest.approx(np.ones(120), abs=1e-5)
        query = screen.rows("query")
        best = np.array(CONDITIONS, dtype=object)[found.log_proba[query].argmax(axis=1)]
        assert (best == screen.conditions[query]).mean() > 0.7


@every_baseline
def test_the_selection_fit_reads_no_label_but_the_reference_cells_own(name, screen):
    """With one configuration there is nothing to choose, so validation labels cannot matter either."""
    found = values(fit_once(with_nothing_to_choose(name), screen))
    for part in ("validation", "query"):
        others = fit_once(with_nothing_to_choose(name), relabelled(screen, part))
        assert np.array_equal(values(others), found), part


@every_baseline
def test_the_final_fit_reads_no_label_of_a_query(name, screen):
    first, second = baseline(name), baseline(name)
    fit_once(first, screen)
    fit_once(second, screen)
    assert np.array_equal(values(fit_again(second, relabelled(screen, "query"))), values(fit_again(first, screen)))


@every_baseline
def test_the_final_fit_learns_from_validation_cells_and_the_selection_fit_does_not(name, screen):
    """A gene that no reference cell expresses means nothing to the selection fit."""
    with_gene, without = marked(screen, in_queries=True), marked(screen, in_queries=False)
    ranker, query = baseline(name), screen.rows("query")
    fit_once(ranker, without)
    before = [values(ranker.predict(each))[query] for each in (with_gene, without)]
    assert before[0] == pytest.approx(before[1], abs=1e-6)
    ranker.fit(without, without.rows("reference", "validation"))
    after = [values(ranker.predict(each))[query] for each in (with_gene, without)]
    assert np.abs(after[0] - after[1]).max() > 0.01


@every_baseline
def test_weights_are_written_without_pickle_and_name_their_columns(name, screen, tmp_path):
    ranker = baseline(name)
    fit_once(ranker, screen)
    ranker.save(tmp_path / "m", screen)
    assert {path.suffix for path in (tmp_path / "m").iterdir()} <= {".json", ".safetensors"}
    assert json.loads((tmp_path / "m" / "config.json").read_text())["genes"][:12] == list(screen.genes)


@every_baseline
def test_choices_are_kept_where_there_are_any(name, screen):
    ranker = baseline(name)
    assert ranker.choices is None
    fit_once(ranker, screen)
    tried = 0 if ranker.choices is None else len(ranker.choices)
    assert tried == {"logreg": 12, "logreg_genes": 12, "lda": 4, "logreg_default": 0, "pca": 0}.get(name, tried)


@every_baseline
def test_an_unknown_key_is_named(name):
    with pytest.raises(InputError, match=rf"^params\.yaml: {name}\.colour: unknown key, remove it or correct its name"):
        baseline(name, colour="red")


@pytest.mark.parametrize(("name", "key"), [("pca", "components"), *((name, "max_iter") for name in TUNED)])
def test_a_missing_key_and_a_wrong_value_are_named(name, key):
    with pytest.raises(InputError, match=rf"^params\.yaml: {name}\.{key}: Field required$"):
        baseline(name, **{key: None})
    with pytest.raises(InputError, match=rf"^params\.yaml: {name}\.{key}: .*greater than or equal to 1, found 0$"):
        baseline(name, **{key: 0})


@pytest.mark.parametrize("name", TUNED)
@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"c": SEARCH | {"evaluations": 1}}, r"c\.evaluations"),
        ({"c": SEARCH | {"least": -0.1}}, r"c\.least"),
        ({"c": SEARCH | {"least": 10.0}}, r"c: .*least is 10, above most, 3"),
        ({"scaling": ["max"]}, r"scaling\.0"),
        ({"features": []}, "features"),
    ],
)
def test_settings_to_try_must_make_sense(name, changes, key):
    with pytest.raises(InputError, match=rf"^params\.yaml: {name}\.{key}"):
        baseline(name, **changes)


@every_baseline
def test_cross_validation_judges_cells_that_the_fit_has_not_seen(name, screen):
    """With other labels for the cells held out the same predictions are judged, now at chance."""
    known = known_folds(screen)
    found = cross_validate(with_its_choices(baseline(name), screen), screen, known[:1])
    if found is None:
        assert name == "pca", "it has no class probabilities"
        return
    assert found["exact_hit@1"] > 0.7
    held = screen.conditions.copy()
    held[known[0][1]] = np.random.default_rng(0).permutation(held[known[0][1]])
    shuffled = cross_validate(with_its_choices(baseline(name), screen), replace(screen, conditions=held), known[:1])
    assert shuffled["exact_hit@1"] < 0.6


def test_held_out_figures_by_hand():
    """Two folds of one and of two cells, every cell counting the same."""
    conditions = np.array(["A+ctrl", "B+ctrl"], dtype=object)
    first = np.log(np.array([[0.8, 0.2]]))
    second = np.log(np.array([[0.4, 0.6], [0.5, 0.5]]))
    parts = [(first, conditions, conditions[:1]), (second, conditions, conditions[[0, 1]])]
    found = held_out(parts)
    assert found["cross_entropy"] == pytest.approx(-np.log([0.8, 0.4, 0.5]).mean())
    assert found["exact_hit@1"] == pytest.approx((1 + 0 + 0.5) / 3)
    assert found["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 1.5) / 3)
