"""GEARS's archive of Norman et al. 2019: its perturb_processed.h5ad, unpacked and checked."""

import lzma
import shutil
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

import h5py
import pandas as pd
from anndata.io import read_elem

from reverse_perturbation.errors import InputError

MEMBER = "perturb_processed.h5ad"
CONDITIONS = Path("data/norman_conditions.csv")  # every label of the full file and its cells
GENES = 5045
LARGEST = 8 << 30  # bytes unpacked; the file is said to have 2.2 GB
BLOCK = 1 << 20  # bytes
# What zipfile, its decompressors and h5py raise for a damaged, encrypted or unsupported archive.
DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError, KeyError, OSError)


def unpack_norman(download: Path, result: Path) -> None:
    """Write the archive's one .h5ad file, checked, to ``result`` and nothing anywhere else.

    Raises
    ------
    InputError
        If the archive is not GEARS's, cannot be unpacked, names a place outside of its folder, or unpacks to more
        than :data:`LARGEST` bytes or than the disk has room for.
    """
    try:
        with zipfile.ZipFile(download) as archive:
            member = _checked_member(archive)
            _check_room(download, member.file_size, result.parent)
            # Not extract(): the name in the archive has no say in where the file is written.
            with archive.open(member) as packed, result.open("wb") as file:
                shutil.copyfileobj(packed, file, BLOCK)  # at most file_size bytes; their CRC is checked
        _check_content(result)
    except InputError:
        raise
    except DAMAGED as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's, not the archive's
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{download}: not GEARS's archive of Norman et al. 2019 ({reason}); delete {download}, fetch it again, or "
            "get it with a browser: the server sends programs a challenge at times"
        ) from None


def _checked_member(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    """Return the entry of the .h5ad file; raise ValueError if it or another entry is not what it should be."""
    entries = archive.infolist()
    outside = [entry.filename for entry in entries if _leaves_folder(entry.filename)]
    if outside:
        raise ValueError(f"it holds {outside[0]!r}, a path outside of its folder")
    found = [entry for entry in entries if PurePosixPath(entry.filename).name == MEMBER]
    if len(found) != 1:
        raise ValueError(f"it holds {len(found)} files {MEMBER}, expected one")
    (member,) = found
    if member.flag_bits & 1:
        raise ValueError(f"{member.filename} is encrypted")
    if member.file_size > LARGEST:
        raise ValueError(f"{member.filename} unpacks to {member.file_size:,} bytes, expected at most {LARGEST:,}")
    return member


def _leaves_folder(name: str) -> bool:
    """Return whether a path is absolute, with or without a drive, or has ``..`` in it."""
    path = PureWindowsPath(name)  # reads both kinds of slashes
    return bool(path.anchor) or ".." in path.parts


def _check_room(download: Path, needed: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(f"{download}: unpacks to {needed:,} bytes, {free:,} are free; free some, or use --folder")


def _expected_cells() -> pd.Series:
    """Return the number of cells of each condition."""
    try:
        return pd.read_csv(CONDITIONS).set_index("condition")["cells"]
    except FileNotFoundError:
        raise InputError(f"{CONDITIONS}: no such file; run from the repository root") from None


def _check_content(path: Path) -> None:
    """Raise ValueError unless the file has the cells of each condition and the genes it should have."""
    expected = _expected_cells()
    with h5py.File(path) as file:
        cells = read_elem(file["obs"])["condition"].astype(str).value_counts()
        genes = len(read_elem(file["var"]))
    if cells.to_dict() != expected.to_dict() or genes != GENES:
        raise ValueError(
            f"{cells.sum():,} cells of {len(cells)} labels x {genes:,} genes, expected {expected.sum():,} cells of "
            f"{len(expected)} labels as in {CONDITIONS} x {GENES:,}"
        )
