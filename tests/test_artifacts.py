"""The models that dvc.yaml names are outputs of the pipeline, described, and have a card."""

from contextlib import closing

from dvc.repo import Repo

from tests.end_to_end.pipeline import ROOT


def test_the_artifacts_are_outputs_with_a_card():
    with closing(Repo(str(ROOT))) as repo:
        artifacts = repo.artifacts.read()["dvc.yaml"]
        outputs = {out.def_path for out in repo.index.outs}
    assert artifacts.keys() == {"scgpt-finetuned", "logreg"}
    card = (ROOT / "models" / "README.md").read_text()
    for name, artifact in artifacts.items():
        assert artifact.type == "model"
        assert artifact.labels
        assert artifact.desc
        assert artifact.path in outputs
        assert f"`{name}`" in card
        assert f"`{artifact.path}`" in card
