"""Each input is read, or refused with one line, as docs/inputs.md has it; none ends in a traceback."""

import fcntl

import pytest

from reverse_perturbation.errors import InputError
from reverse_perturbation.prepare.h5ad import read_source
from tests.inputs import files
from tests.inputs.cases import CASES, LATER
from tests.inputs.page import PAGE, row, try_input

ALL = [(group, name) for group, cases in CASES.items() for name in cases]


@pytest.mark.parametrize(("group", "name"), ALL, ids=[name for _, name in ALL])
def test_an_input(tmp_path, group, name):
    outcome = try_input(tmp_path, CASES[group][name], name, group == LATER)
    assert row(name, outcome) in PAGE.read_text().splitlines(), "run python -m tests.inputs.page"
    assert outcome.code == (2 if outcome.lines[-1].startswith("error: ") else 0)
    if group != LATER:
        assert len(outcome.lines) == 1
        assert outcome.written == (outcome.code == 0)
    left = {path.name for path in tmp_path.iterdir() if path.name.startswith(".")}
    assert not left, "nothing half written is left"


def test_the_page_has_no_other_rows():
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and line != "| input | line |"]
    assert [line.split(" | ")[0][2:] for line in rows] == [name for _, name in ALL]


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    """As HDF5 reports it of some network file systems."""

    def refuse(*_):
        raise OSError(37, "Unable to synchronously open file (unable to lock file, errno = 37)")

    path = files.saved(tmp_path / "mine.h5ad", files.screen())
    monkeypatch.setattr("h5py.File", refuse)
    with pytest.raises(InputError, match=r"mine\.h5ad: its file system allows no locks; set .* HDF5_USE_FILE_LOCKING"):
        read_source(path)


def test_a_locked_file(tmp_path):
    def make(path):
        files.saved(path, files.screen())
        fcntl.flock(writer := path.open("rb+"), fcntl.LOCK_EX)  # as HDF5 itself does for who writes
        locks.append(writer)
        return path

    locks: list = []
    outcome = try_input(tmp_path, make, "a locked file")
    locks[0].close()
    assert outcome.code == 2
    assert (
        "mine.h5ad: another program has it open for writing and locks it; close it there, or copy" in outcome.lines[0]
    )


def test_a_filter_that_h5py_lacks(tmp_path, monkeypatch):
    """Such as Blosc or Zstandard of hdf5plugin; here gzip, as if it were not there."""
    adata = files.screen()
    path = tmp_path / "mine.h5ad"
    adata.write_h5ad(path, compression="gzip")
    monkeypatch.setattr("h5py.h5z.filter_avail", lambda code: False)
    with pytest.raises(InputError, match=r"obs\[.*\] is compressed with deflate, which h5py cannot read alone; write"):
        read_source(path)
