"""Files appear whole or not at all."""

import pytest

from reverse_perturbation.storage import read_json, sha256, write_atomically, write_json, write_text


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
