"""Files appear whole or not at all."""

import errno
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from reverse_perturbation import storage
from reverse_perturbation.errors import InputError
from reverse_perturbation.storage import (
    check_space,
    for_spreadsheets,
    load_weights,
    read_json,
    save_weights,
    sha256,
    source_sha256,
    write_atomically,
    write_json,
    write_text,
)


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def interrupted() -> None:
        with write_atomically(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_replaced_whole(tmp_path):
    folder = tmp_path / "model"
    for names in (["a", "b"], ["c"]):
        with write_atomically(folder) as temporary:
            temporary.mkdir()
            for name in names:
                (temporary / name).write_text(name)
    assert [p.name for p in folder.iterdir()] == ["c"]


def test_json_refuses_nan_and_keeps_the_file(tmp_path):
    path = tmp_path / "m.json"
    write_json(path, {"mrr": 0.5})
    with pytest.raises(ValueError, match="Out of range"):
        write_json(path, {"mrr": float("nan")})
    assert read_json(path) == {"mrr": 0.5}


def test_hashes_follow_content_and_names(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    write_text(tmp_path / "x" / "a", "1")
    write_text(tmp_path / "y" / "a", "1")
    assert sha256(tmp_path / "x") == sha256(tmp_path / "y")
    write_text(tmp_path / "y" / "b", "")
    assert sha256(tmp_path / "x") != sha256(tmp_path / "y")
    assert sha256(tmp_path / "x" / "a") == "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"


# ---- weights


WEIGHTS = {"mean": np.arange(3.0), "components": np.arange(6, dtype=np.float32).reshape(2, 3)}


def kept(weights: dict, about: dict) -> tuple[dict, dict]:
    return weights, about


def test_weights_come_back_as_they_were(tmp_path):
    save_weights(tmp_path / "m", WEIGHTS, {"genes": ["A", "B"], "c": 0.1})
    weights, about = load_weights(tmp_path / "m", kept, "baseline@pca")
    assert about == {"genes": ["A", "B"], "c": 0.1}
    assert weights.keys() == WEIGHTS.keys()
    for name, array in WEIGHTS.items():
        assert weights[name].dtype == array.dtype
        assert weights[name].tolist() == array.tolist()


def test_a_transposed_array_is_written_as_it_reads_not_as_it_lies_in_memory(tmp_path):
    """safetensors would write the bytes of the array that it is a view of."""
    save_weights(tmp_path / "m", {"turned": WEIGHTS["components"].T, "part": WEIGHTS["components"][:, ::2]}, {})
    found = load_file(tmp_path / "m" / "weights.safetensors")
    assert found["turned"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert found["part"].tolist() == [[0, 2], [3, 5]]


def test_arrays_and_what_they_belong_to_are_replaced_together(tmp_path, monkeypatch):
    save_weights(tmp_path / "m", WEIGHTS, {"fit": 1})
    before = sha256(tmp_path / "m")

    def full_disk(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(storage, "write_json", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_weights(tmp_path / "m", {"mean": np.zeros(9)}, {"fit": 2})
    assert sha256(tmp_path / "m") == before
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def cut(folder: Path) -> None:
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-5])


BROKEN = {
    "no weights": lambda folder: (folder / "weights.safetensors").unlink(),
    "no config": lambda folder: (folder / "config.json").unlink(),
    "cut": cut,
    "no JSON": lambda folder: (folder / "config.json").write_text("{"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_model_is_named_with_what_makes_it_again(tmp_path, name):
    save_weights(tmp_path / "m", WEIGHTS, {})
    BROKEN[name](tmp_path / "m")
    with pytest.raises(InputError, match=r"/m: not saved weights \(.*\); run `dvc repro baseline@pca` again$"):
        load_weights(tmp_path / "m", kept, "baseline@pca")


@pytest.mark.parametrize("error", [ValueError, KeyError, TypeError])
def test_what_is_no_such_model_is_named_too(tmp_path, error):
    save_weights(tmp_path / "m", WEIGHTS, {})

    def build(*_):
        raise error("classes")

    with pytest.raises(InputError, match=r"/m: not saved weights .*classes"):
        load_weights(tmp_path / "m", build, "logreg")


def test_another_error_of_the_model_is_not_taken_for_a_broken_folder(tmp_path):
    save_weights(tmp_path / "m", WEIGHTS, {})
    with pytest.raises(ZeroDivisionError):
        load_weights(tmp_path / "m", lambda *_: 1 / 0, "logreg")


# ---- the hash of code


def test_the_hash_of_code_follows_its_files_names_and_order_but_not_caches(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_text(tmp_path / name / f"{name}.py", name)
    folders = [tmp_path / "a", tmp_path / "b"]
    before = source_sha256(folders)
    (tmp_path / "a" / "__pycache__").mkdir()
    write_text(tmp_path / "a" / "__pycache__" / "a.pyc", "compiled")
    write_text(tmp_path / "a" / "notes.md", "no code")
    assert source_sha256(folders) == before
    assert source_sha256(folders[::-1]) != before
    write_text(tmp_path / "b" / "b.py", "changed")
    assert (changed := source_sha256(folders)) != before
    (tmp_path / "b" / "b.py").rename(tmp_path / "b" / "c.py")
    assert source_sha256(folders) not in (before, changed)


def test_no_text_of_a_table_is_a_formula_to_a_spreadsheet():
    table = pd.DataFrame({"label": ["=1+1", "@x", "-A", "+B", "A+B", None], "number": [-1.0, 2, 3, 4, 5, 6]})
    table["kind"] = pd.Categorical(["=a", "b", "b", "b", "b", "b"])
    shown = for_spreadsheets(table)
    assert shown["label"].tolist() == ["'=1+1", "'@x", "'-A", "'+B", "A+B", None]
    assert shown["kind"].tolist() == ["'=a", "b", "b", "b", "b", "b"]
    assert shown["number"].tolist() == table["number"].tolist()
    assert table["label"][0] == "=1+1"


def test_a_file_larger_than_the_disk_is_refused_before_it_is_begun(tmp_path):
    check_space(tmp_path / "new" / "small", 10)
    with pytest.raises(OSError, match=r"No space left on device: .*large") as refused:
        check_space(tmp_path / "large", 2**62)
    assert refused.value.errno == errno.ENOSPC


@pytest.mark.parametrize("content", [b'{"a": 1e999}', b'{"a": NaN}', b'{"a": -Infinity}', b'{"a"', b"{\xff}", b""])
def test_damaged_json_is_named(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.json: not JSON \(.*`dvc repro`") as error:
        read_json(tmp_path / "a.json")
    assert "\n" not in str(error.value)
