"""Opening a user's file: what kind of file it is, and that all of it lies in that one file."""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from reverse_perturbation.data.screen.contract import open_hdf5
from reverse_perturbation.errors import InputError

ADVICE = "set data.path to an .h5ad file"
WRITE = "AnnData.write_h5ad"
UNPACK = "unpack it and set data.path to the .h5ad file in it"
CONVERT = f"read it with scanpy, add what docs/norman.md asks for and write it with {WRITE}"
# First bytes of files that are often given instead.
KINDS = {
    b"\x1f\x8b": ("compressed with gzip", UNPACK),
    b"PK\x03\x04": ("a zip archive", UNPACK),
    b"BZh": ("compressed with bzip2", UNPACK),
    b"\xfd7zXZ": ("compressed with xz", UNPACK),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", UNPACK),
    b"version https://git-lfs": ("a Git LFS pointer, not the file itself", "run `git lfs pull`"),
    b"outs:": ("a DVC pointer, not the file itself", "run `dvc pull` and set data.path to the file it names"),
    b"<": ("a web page, not the file itself", "download the file again"),
    b"%%MatrixMarket": ("a matrix in Matrix Market format", CONVERT),
}
SPECIAL = {stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket", stat.S_ISCHR: "a device", stat.S_ISBLK: "a device"}


@contextmanager
def open_source(path: Path) -> Iterator[h5py.File]:
    """Open a user's .h5ad file.

    Raises
    ------
    InputError
        If it is another kind of file, cannot be opened, has parts in other files, or fails while it is read.
    """
    _refuse_other_kinds(path)
    try:
        with h5py.File(path, "r"):
            pass
    except BlockingIOError:
        raise InputError(
            f"{path}: another program has it open for writing and locks it; close it there, or copy the file"
        ) from None
    except OSError as error:
        if "unable to lock file" in str(error):
            raise InputError(
                f"{path}: its file system allows no locks; set the environment variable HDF5_USE_FILE_LOCKING=FALSE"
            ) from None  # of other errors open_hdf5 says what is wrong
    with open_hdf5(path, ADVICE) as file:
        _refuse_other_layouts(path, file)
        _refuse_other_files(path, file)
        yield file


def _refuse_other_kinds(path: Path) -> None:
    if path.is_dir():
        if any((path / name).exists() for name in (".zgroup", "zarr.json")):
            raise InputError(f"{path}: a Zarr store; read it with anndata.read_zarr and write it with {WRITE}")
        return  # open_hdf5 refuses folders
    if not path.exists():
        return
    mode = path.stat().st_mode
    for is_kind, kind in SPECIAL.items():
        if is_kind(mode):
            raise InputError(f"{path}: {kind}, not a file; {ADVICE}")
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {ADVICE}") from None
    if not start:
        raise InputError(f"{path}: not an HDF5 file but empty; fetch or write it again")
    for magic, (kind, advice) in KINDS.items():
        if start.startswith(magic):
            raise InputError(f"{path}: {kind}; {advice}")
    if start.isascii() and b"\0" not in start:
        raise InputError(f"{path}: a text file, not an HDF5 file; {ADVICE}. A table of counts: {CONVERT}")


def _refuse_other_layouts(path: Path, file: h5py.File) -> None:
    if "obs" in file or "var" in file:
        return
    layouts = {
        "a 10x file": "matrix/barcodes" in file or any(f"{name}/barcodes" in file for name in file),
        "a loom file": "row_attrs" in file and "col_attrs" in file,
        "a MuData file": "mod" in file,
        "an h5Seurat file": "assays" in file and "meta.data" in file,
    }
    for layout, is_it in layouts.items():
        if is_it:
            raise InputError(f"{path}: {layout}, not .h5ad; {CONVERT}")


def _refuse_other_files(path: Path, file: h5py.File) -> None:
    """Refuse links and data that lead out of the file: they are no part of its sha256, and read what lies there."""
    groups, seen = [file["/"]], set()
    while groups:
        group = groups.pop()
        for name in group:
            link = group.get(name, getlink=True)
            place = f"{group.name.rstrip('/')}/{name}".lstrip("/")
            if isinstance(link, h5py.ExternalLink):
                raise InputError(
                    f"{path}: {place} is a link to another file, {link.filename}; write the file again with all parts"
                )
            if isinstance(link, h5py.SoftLink):
                continue  # what it leads to is in the file and is met there
            element = group[name]
            address = h5py.h5o.get_info(element.id).addr
            if address in seen:
                continue
            seen.add(address)
            if isinstance(element, h5py.Group):
                groups.append(element)
            elif isinstance(element, h5py.Dataset) and (outside := _outside(element)):
                raise InputError(
                    f"{path}: the values of {place} are in another file, {outside}; write the file again with all parts"
                )


def _outside(dataset: h5py.Dataset) -> str:
    """Return the name of another file in which a dataset's values are, or empty text."""
    if dataset.external:
        return str(dataset.external[0][0])
    sources = [source.file_name for source in dataset.virtual_sources()] if dataset.is_virtual else []
    return next((str(name) for name in sources if name != "."), "")
