"""The report on learning curves; the experiments are stood in for by a run of the small pipeline."""

import json
import shutil

import pytest

from reverse_perturbation.report.markdown import markdown
from reverse_perturbation.studies import learning_curve
from reverse_perturbation.studies.presets import load_preset
from tests.end_to_end.pipeline import ROOT
from tests.studies.test_screens import ABOUT, row


@pytest.fixture
def report(simulated, tmp_path, monkeypatch):
    """Rows out of order, of 40 and of 8 known cells."""
    monkeypatch.chdir(ROOT)
    rows = {}
    for name, (reference, validation) in {"all": (32, 8), "some": (6, 2)}.items():
        shutil.copytree(simulated, tmp_path / name)
        path = tmp_path / name / "metrics" / "split.json"
        content = json.loads(path.read_text())
        content["cells"] |= {"reference": reference, "validation": validation}
        path.write_text(json.dumps(content))
        rows[name] = row(tmp_path / name, "all_targets", 42)
    learning_curve.write(load_preset("learning_curve"), rows, ABOUT | {"preset": "learning_curve"}, tmp_path)
    return tmp_path, rows["all"].comparison


def test_the_table_has_every_model_by_the_number_of_known_cells(report):
    folder, comparison = report
    content = json.loads((folder / "learning_curve.json").read_text())
    table = learning_curve.main_table(content)
    assert markdown(table) in (folder / "learning_curve.md").read_text()
    assert [line["known cells"] for line in table] == ["8"] * 4 + ["40"] * 4
    best = comparison["strongest"]["baseline"]
    for line in table:
        test = comparison["tests"][line["model"]][best]
        assert line["strongest baseline"] == best
        assert line["its mrr"] == pytest.approx(comparison[best]["mrr"], abs=1e-6)
        assert line["mrr"] == pytest.approx(comparison[line["model"]]["mrr"], abs=1e-6)
        assert [line["gap"], line["95 % low"]] == pytest.approx([test["gap"], test["low"]], abs=1e-6)


def test_the_picture_has_every_curve_and_interval(report):
    folder, comparison = report
    assert "![mrr over known cells](learning_curve.png)" in (folder / "learning_curve.md").read_text()
    assert (folder / "learning_curve.png").stat().st_size > 10_000
    figure = learning_curve.draw(json.loads((folder / "learning_curve.json").read_text()))
    above, below = figure.axes
    curves = {line.get_label(): line.get_xydata().tolist() for line in above.lines}
    for name, (_, words) in learning_curve.DRAWN.items():
        (few, low), (many, high) = curves[words]
        assert (few, many) == (8, 40)
        assert [low, high] == pytest.approx([comparison[name]["mrr"]] * 2, abs=1e-6)
    assert len(below.containers) == sum(name in comparison["tests"] for name in learning_curve.DRAWN) == 3
