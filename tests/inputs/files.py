"""Small files as users bring them: one valid screen, and what is done to it."""

import gzip
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata.io import write_elem

GENES = ["KLF1", "GATA1", "CEBPA", "SPI1", "TP53", "ACTB", "GAPDH", "RPL3", "MT-CO1", "HBG1"]
LABELS = ["KLF1+ctrl", "GATA1+ctrl", "KLF1+GATA1", "ctrl"]
N = 24

Change = Callable[[ad.AnnData], None]
Edit = Callable[[h5py.File], None]


def screen(labels=LABELS, genes=GENES) -> ad.AnnData:
    """24 cells x 10 genes in the layout of GEARS, the labels in turn."""
    counts = np.random.default_rng(0).poisson(2.0, (N, len(genes))).astype(np.float32)
    condition = [labels[i % len(labels)] for i in range(N)]
    obs = pd.DataFrame({"condition": condition, "control": [int(label == "ctrl") for label in condition]})
    obs.index = [f"cell{i}" for i in range(N)]
    var = pd.DataFrame({"gene_name": genes}, index=[f"row{i}" for i in range(len(genes))])
    logs = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    return ad.AnnData(X=sp.csr_matrix(logs), obs=obs, var=var, layers={"counts": sp.csr_matrix(counts)})


def scperturb(labels=("KLF1", "GATA1", "KLF1_GATA1", "control"), genes=GENES) -> ad.AnnData:
    """The same cells in the layout of scPerturb."""
    gears = screen()
    obs = pd.DataFrame({"perturbation": [labels[i % len(labels)] for i in range(N)]}, index=gears.obs_names)
    return ad.AnnData(X=gears.layers["counts"], obs=obs, var=pd.DataFrame(index=list(genes)))


def saved(path: Path, adata: ad.AnnData, edit: Edit | None = None) -> Path:
    adata.write_h5ad(path)
    if edit:
        with h5py.File(path, "a") as file:
            edit(file)
    return path


def of(adata: ad.AnnData, *changes: Change) -> ad.AnnData:
    for change in changes:
        change(adata)
    return adata


# What is done to an open file.


def put(place: str, position: int, value: float) -> Edit:
    def edit(file: h5py.File) -> None:
        file[place][position] = value

    return edit


def replace(place: str, values: object, **options: object) -> Edit:
    """Write other values, without what anndata notes beside them but for the notes that were there."""

    def edit(file: h5py.File) -> None:
        notes = dict(file[place].attrs) if place in file else {}
        if place in file:
            del file[place]
        file.create_dataset(place, data=values, **options)
        for name, note in notes.items():
            file[place].attrs[name] = note

    return edit


def drop(place: str) -> Edit:
    def edit(file: h5py.File) -> None:
        del file[place]

    return edit


def note(place: str, name: str, value: object) -> Edit:
    def edit(file: h5py.File) -> None:
        file[place].attrs[name] = value

    return edit


def add(place: str, values: object) -> Edit:
    def edit(file: h5py.File) -> None:
        write_elem(file, place, values)

    return edit


def unwritten(place: str, shape: tuple[int, ...]) -> Edit:
    """Declare a dense matrix and store nothing of it."""

    def edit(file: h5py.File) -> None:
        del file[place]
        dataset = file.create_dataset(place, shape=shape, dtype=np.float32, chunks=True)
        dataset.attrs["encoding-type"], dataset.attrs["encoding-version"] = "array", "0.2.0"

    return edit


def outside(file: h5py.File) -> None:
    """Keep the values of the counts in a file beside this one."""
    beside = str(Path(file.filename).with_suffix(".raw"))
    values = file["layers/counts/data"][()]
    values.tofile(beside)
    del file["layers/counts/data"]
    file.create_dataset("layers/counts/data", values.shape, values.dtype, external=[(beside, 0, values.nbytes)])


def linked(file: h5py.File) -> None:
    del file["layers/counts"]
    file["layers/counts"] = h5py.ExternalLink("/etc/passwd", "counts")


def virtual(file: h5py.File) -> None:
    """Map the counts to those of another file."""
    size = len(file["layers/counts/data"])
    layout = h5py.VirtualLayout(shape=(size,), dtype=np.float32)
    layout[:] = h5py.VirtualSource("other.h5ad", "layers/counts/data", shape=(size,))
    del file["layers/counts/data"]
    file.create_virtual_dataset("layers/counts/data", layout)


def circle(file: h5py.File) -> None:
    """A group that holds itself, and a link that leads nowhere: unusual, and harmless."""
    file["uns/self"] = file["uns"]
    file["uns/gone"] = h5py.SoftLink("/nowhere")


def new_encoding(place: str) -> Edit:
    def edit(file: h5py.File) -> None:
        file[place].attrs["encoding-type"] = "quantum-array"
        file[place].attrs["encoding-version"] = "9.0"

    return edit


def of_06(file: h5py.File) -> None:
    """The layout of anndata 0.6: tables of records, categories in uns, sparse matrices by h5sparse."""
    labels = sorted(set(LABELS))
    codes = [labels.index(LABELS[i % len(LABELS)]) for i in range(N)]
    obs = np.array(
        [(f"cell{i}".encode(), code, int(labels[code] == "ctrl")) for i, code in enumerate(codes)],
        dtype=[("index", "S8"), ("condition", "i1"), ("control", "i8")],
    )
    var = np.array([(f"row{i}".encode(), gene.encode()) for i, gene in enumerate(GENES)], dtype="S8,S8")
    var.dtype.names = ("index", "gene_name")
    for name, table in (("obs", obs), ("var", var)):
        del file[name]
        file.create_dataset(name, data=table)
    file.create_dataset("uns/condition_categories", data=[label.encode() for label in labels])
    for place in ("X", "layers/counts"):
        shape = file[place].attrs["shape"]
        for key in list(file[place].attrs):
            del file[place].attrs[key]
        file[place].attrs["h5sparse_format"], file[place].attrs["h5sparse_shape"] = b"csr", shape


# Files of other kinds.


def packed(path: Path) -> Path:
    path = path.with_suffix(".h5ad.gz")
    path.write_bytes(gzip.compress(saved(path.with_name("plain.h5ad"), screen()).read_bytes()))
    return path


def zipped(path: Path) -> Path:
    path = path.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mine.h5ad", b"")
    return path


def text(name: str, content: str) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        path.with_name(name).write_text(content)
        return path.with_name(name)

    return make


def hdf5(name: str, *places: str) -> Callable[[Path], Path]:
    """An HDF5 file with some datasets."""

    def make(path: Path) -> Path:
        with h5py.File(path.with_name(name), "w") as file:
            for place in places:
                file[place] = np.arange(3)
        return path.with_name(name)

    return make


def folder(*members: str) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        path.mkdir()
        for member in members:
            (path / member).touch()
        return path

    return make


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def cut(share: float) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        content = saved(path, screen()).read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        return path

    return make
