"""GEARS's archive is unpacked to one place, and refused in one line if it is another or a trap."""

import struct
import zipfile
from types import SimpleNamespace

import h5py
import pytest

from reverse_perturbation.errors import InputError
from reverse_perturbation.prepare import norman
from tests.prepare.sources import ROOT, norman_zip

MEMBER = "norman/perturb_processed.h5ad"
# Where a field lies in the header of the file and in that of the directory at the end.
FLAGS, METHOD, SIZE = (6, 8), (8, 10), (22, 24)


@pytest.fixture(autouse=True)
def _root(monkeypatch):
    monkeypatch.chdir(ROOT)


def small_zip(folder, *members, content=b"content" * 20):
    path = folder / "small.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in members or (MEMBER,):
            archive.writestr(member, content)
    return path


def patched(path, field, form, value):
    """Change a field in both headers of an archive of one file."""
    content = bytearray(path.read_bytes())
    for signature, offset in zip((b"PK\x03\x04", b"PK\x01\x02"), field, strict=True):
        struct.pack_into(form, content, content.index(signature) + offset, value)
    path.write_bytes(content)
    return path


def refused(path, folder, message):
    """Check that the archive is refused in one line that names it."""
    with pytest.raises(InputError, match=message) as error:
        norman.unpack_norman(path, folder / "result.h5ad")
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_the_file_is_unpacked_and_nothing_else(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    norman.unpack_norman(norman_zip(tmp_path), folder / "result.h5ad")
    assert [path.name for path in folder.iterdir()] == ["result.h5ad"]
    with h5py.File(folder / "result.h5ad") as file:
        assert len(file["obs"]["condition"]["codes"]) == 91205


def test_an_archive_with_other_content_is_refused(tmp_path):
    refused(norman_zip(tmp_path, genes=7), tmp_path, r"91,205 cells of 284 labels x 7 genes, expected .* x 5,045")
    refused(norman_zip(tmp_path, member="norman/other.h5ad"), tmp_path, "it holds 0 files perturb_processed.h5ad")
    refused(small_zip(tmp_path, MEMBER, f"b/{MEMBER}"), tmp_path, "it holds 2 files perturb_processed.h5ad")
    refused(small_zip(tmp_path), tmp_path, "not GEARS's archive .*file signature not found")


@pytest.mark.parametrize("content", [b"", b"<html>prove that you are no program</html>"])
def test_what_is_no_archive_is_refused(tmp_path, content):
    path = tmp_path / "page.zip"
    path.write_bytes(content)
    refused(path, tmp_path, "File is not a zip file.*get it with a browser")


@pytest.mark.parametrize("at", [60, 100])
def test_damaged_content_is_refused(tmp_path, at):
    path = small_zip(tmp_path, content=bytes(range(256)))
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)
    refused(path, tmp_path, "not GEARS's archive")


def test_a_users_file_of_the_same_path_is_left_alone(tmp_path):
    """An archive once moved the file of an absolute path in it, or one above, and deleted it as not the right one."""
    theirs = tmp_path / "perturb_processed.h5ad"
    theirs.write_bytes(b"theirs")
    folder = tmp_path / "out"
    folder.mkdir()
    for member in (str(theirs), "../perturb_processed.h5ad"):
        refused(small_zip(tmp_path, member), folder, "a path outside of its folder")
    assert theirs.read_bytes() == b"theirs"
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    "name",
    ["/etc/go.csv", "norman/../../go.csv", "..", r"C:\go.csv", r"..\go.csv", "C:go.csv", "//server/share/go.csv"],
)
def test_no_entry_may_lead_outside(tmp_path, name):
    refused(small_zip(tmp_path, MEMBER, name), tmp_path, r"it holds '.*', a path outside of its folder.*delete")


def test_names_with_dots_in_them_are_fine(tmp_path):
    refused(small_zip(tmp_path, MEMBER, "norman/..go.csv"), tmp_path, "file signature not found")


def test_encryption_is_told(tmp_path):
    refused(patched(small_zip(tmp_path), FLAGS, "<H", 1), tmp_path, f"{MEMBER} is encrypted")


def test_unsupported_compression_is_told(tmp_path):
    refused(patched(small_zip(tmp_path), METHOD, "<H", 9), tmp_path, "compression")


def test_the_size_is_bounded_before_anything_is_written(tmp_path, monkeypatch):
    path = patched(small_zip(tmp_path), SIZE, "<I", 2**32 - 2)
    monkeypatch.setattr(norman, "LARGEST", 1000)
    refused(path, tmp_path, f"{MEMBER} unpacks to 4,294,967,294 bytes, expected at most 1,000")
    monkeypatch.undo()
    monkeypatch.setattr(norman.shutil, "disk_usage", lambda folder: SimpleNamespace(free=50))
    refused(small_zip(tmp_path), tmp_path, "unpacks to 140 bytes, 50 are free; free some, or use --folder")
    assert not (tmp_path / "result.h5ad").exists()


def test_an_archive_that_understates_its_size_is_not_unpacked_beyond_it(tmp_path):
    refused(patched(small_zip(tmp_path), SIZE, "<I", 10), tmp_path, "Bad CRC-32")
    result = tmp_path / "result.h5ad"
    assert not result.exists() or result.stat().st_size <= 10


def test_the_table_of_conditions_is_looked_for_in_the_repository(tmp_path, monkeypatch):
    path = norman_zip(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"norman_conditions\.csv: no such file; run from the repository root"):
        norman.unpack_norman(path, tmp_path / "result.h5ad")
