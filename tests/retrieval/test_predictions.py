"""Predictions survive the disk, and broken files are named."""

from pathlib import Path

import numpy as np
import pytest

from reverse_perturbation.errors import InputError
from reverse_perturbation.retrieval.predictions import Predictions

CELL_IDS = np.array(["c1", "cell-two", "ζ3"], dtype=object)
CONDITIONS = np.array(["A+ctrl", "A+B"], dtype=object)
LOG_PROBA = np.log(np.array([[0.25, 0.75], [0.5, 0.5], [1e-30, 1.0]], dtype=np.float32))
EMBEDDING = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.mark.parametrize("classifier", [True, False])
@pytest.mark.parametrize("embedding", [True, False])
def test_round_trip(tmp_path, classifier, embedding):
    if not classifier and not embedding:
        with pytest.raises(ValueError, match="neither"):
            Predictions(CELL_IDS, None, None, None)
        return
    given = Predictions(
        CELL_IDS,
        LOG_PROBA if classifier else None,
        CONDITIONS if classifier else None,
        EMBEDDING if embedding else None,
    )
    given.save(tmp_path / "a.npz")
    found = Predictions.load(tmp_path / "a.npz")
    assert found.cell_ids.tolist() == CELL_IDS.tolist()
    for name in ("log_proba", "conditions", "embedding"):
        before, after = getattr(given, name), getattr(found, name)
        assert (after is None) == (before is None)
        if before is not None:
            assert after.dtype == before.dtype
            assert (after == before).all()


def test_the_mean_of_the_control_cells_survives_and_has_the_embedding_s_dimensions(tmp_path):
    mean = np.array([1, 2, 3, 4], dtype=np.float32)
    Predictions(CELL_IDS, None, None, EMBEDDING, "hash", mean).save(tmp_path / "a.npz")
    found = Predictions.load(tmp_path / "a.npz")
    assert found.control_mean is not None
    assert found.control_mean.tolist() == [1, 2, 3, 4]
    for embedding, broken in ((EMBEDDING, mean[:3]), (None, mean)):
        with pytest.raises(ValueError, match="control_mean is not of the embedding's dimensions"):
            Predictions(CELL_IDS, LOG_PROBA, CONDITIONS, embedding, None, broken)


@pytest.mark.parametrize(
    ("log_proba", "conditions", "embedding", "complaint"),
    [
        (LOG_PROBA[:2], CONDITIONS, None, "3 cells"),
        (LOG_PROBA, None, EMBEDDING, "together"),
        (None, CONDITIONS, EMBEDDING, "together"),
        (LOG_PROBA, CONDITIONS[:1], None, "one column a condition"),
        (LOG_PROBA, np.array(["A+B", "A+B"], dtype=object), None, "twice"),
        (None, None, EMBEDDING[0], "3 cells"),
        (None, None, np.where(EMBEDDING == 5, np.nan, EMBEDDING), "embedding holds nan"),
        (np.where(LOG_PROBA.max() == LOG_PROBA, -np.inf, LOG_PROBA), CONDITIONS, None, "log_proba holds -inf .*finite"),
        (np.full((3, 2), -1e300), CONDITIONS, None, "log_proba holds -inf .in float32.; it must be finite"),
    ],
)
def test_parts_that_do_not_fit(log_proba, conditions, embedding, complaint):
    with pytest.raises(ValueError, match=complaint):
        Predictions(CELL_IDS, log_proba, conditions, embedding)


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    Predictions(CELL_IDS, None, None, EMBEDDING).save(path)
    before = path.read_bytes()

    def full_disk(file: object, **arrays: np.ndarray) -> None:
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(OSError, match="no space"):
        Predictions(CELL_IDS, LOG_PROBA, CONDITIONS, None).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def text(path: Path) -> None:
    path.write_text("cell_ids,log_proba\n")


def one_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, EMBEDDING)


def something_else(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, weights=EMBEDDING)


def pickled(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, cell_ids=CELL_IDS, embedding=EMBEDDING)


@pytest.mark.parametrize("breaking", [truncated, flipped, text, one_array, something_else, pickled, Path.unlink])
def test_broken_files(tmp_path, breaking):
    path = tmp_path / "a.npz"
    Predictions(CELL_IDS, LOG_PROBA, CONDITIONS, EMBEDDING).save(path)
    breaking(path)
    with pytest.raises(InputError, match=r"a\.npz: .*dvc repro"):
        Predictions.load(path)
