"""Parts of a user's .h5ad file, read one by one and checked before they are used.

Only the columns that are needed are read, so that no other can stop the file. What is declared is compared before
anything large is read, and the structure of a sparse matrix is checked in full: places outside the matrix would crash
whatever computes with it.
"""

import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata.io import read_elem

from reverse_perturbation.errors import InputError

BLOCK = 2**25  # values of a dense matrix made sparse at once
MANY = 10**8  # values; below it no harm is done
SMALLEST = 1032  # gzip makes nothing smaller than by this factor
SPARSE = ("data", "indices", "indptr")
Element: TypeAlias = h5py.Dataset | h5py.Group


def column_names(frame: Element) -> list[str]:
    """Return the names of the columns of ``obs`` or ``var``."""
    if isinstance(frame, h5py.Dataset):
        return list(frame.dtype.names or ())[1:]
    return [name for name in frame if name not in (_index_name(frame), "__categories")]


def text_of(element: Element | None) -> str | None:
    """Return a single text, None where there is another thing."""
    if not isinstance(element, h5py.Dataset) or element.shape != () or h5py.check_string_dtype(element.dtype) is None:
        return None
    return str(element.asstr(errors="replace")[()])


def read_columns(path: Path, frame: Element, wanted: Sequence[str], helpful: Sequence[str] = ()) -> pd.DataFrame:
    """Read the index and, where they are there, some columns of ``obs`` or ``var``.

    Files of anndata 0.6 and older hold a table of records whose categories are in ``uns``; 0.7 kept them beside the
    columns; later files hold an element a column.

    Parameters
    ----------
    path
        Names the file in an error.
    frame
        ``obs`` or ``var``.
    wanted
        Columns that must be readable if they are there.
    helpful
        Columns that are left out if they cannot be read.

    Raises
    ------
    InputError
        Naming the column, if it cannot be read or has another length than the index.
    """
    part = frame.name.lstrip("/")
    there = column_names(frame)
    read = _column if isinstance(frame, h5py.Group) else _of_records
    if isinstance(frame, h5py.Dataset):
        if not frame.dtype.names or frame.ndim != 1:
            raise InputError(f"{path}: {part} is no table; write the file with AnnData.write_h5ad")
        index = frame.dtype.names[0]
    elif (index := _index_name(frame)) not in frame:
        raise InputError(f"{path}: {part} has no index; write the file with AnnData.write_h5ad")
    labels = read(path, frame, index)
    columns = {}
    for name in dict.fromkeys([*wanted, *helpful]):
        if name not in there:
            continue
        try:
            columns[name] = read(path, frame, name)
            if len(columns[name]) != len(labels):
                found = f"{len(columns[name])} values for {len(labels)} rows"
                raise InputError(f'{path}: {part}["{name}"] has {found}; write the file again')
        except InputError:
            if name in wanted:
                raise
            columns.pop(name, None)
    return pd.DataFrame(columns, index=pd.Index(np.asarray(labels), name=index))


def _read_elem(element: Element) -> Any:
    """Read without anndata's warnings of old layouts: what they hold is checked here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_elem(element)


def _index_name(frame: h5py.Group) -> str:
    name = frame.attrs.get("_index", "_index")
    return name.decode() if isinstance(name, bytes) else str(name)


def _column(path: Path, frame: h5py.Group, name: str) -> pd.Series | pd.Categorical | np.ndarray:
    element, field = frame[name], f'{frame.name.lstrip("/")}["{name}"]'
    for member in [element] if isinstance(element, h5py.Dataset) else element.values():
        if isinstance(member, h5py.Dataset):
            _refuse_unreadable(path, field, member)
    try:
        values = _read_elem(element)
        if "categories" in element.attrs and isinstance(element, h5py.Dataset):
            values = pd.Categorical.from_codes(values, _read_elem(frame[element.attrs["categories"]]))
        if np.ndim(values) != 1:
            raise ValueError("not one value a row")
    except Exception as error:  # anndata raises many types for what it does not know
        encoding = f"{element.attrs.get('encoding-type', 'none')} {element.attrs.get('encoding-version', '')}".strip()
        raise InputError(
            f"{path}: {field} cannot be read by anndata {version('anndata')} (encoding {encoding}: "
            f"{_first_line(error)}); write it as plain text or numbers"
        ) from None
    return values


def _of_records(path: Path, table: h5py.Dataset, name: str) -> pd.Categorical | np.ndarray:
    values = table[name]
    if values.dtype.kind in "SO":
        return np.array([v.decode() if isinstance(v, bytes) else v for v in values], dtype=object)
    categories = f"uns/{name}_categories"
    if values.dtype.kind in "iu" and categories in table.file:
        texts = np.atleast_1d(np.asarray(_read_elem(table.file[categories]), dtype=object))
        if values.max(initial=-1) >= len(texts):
            raise InputError(f'{path}: {table.name[1:]}["{name}"] has codes beyond {categories}; write the file again')
        return pd.Categorical.from_codes(values, pd.Index([t.decode() if isinstance(t, bytes) else t for t in texts]))
    return values


def read_matrix(path: Path, element: Element, shape: tuple[int, int], rows: int | None = None) -> sp.csr_matrix | None:
    """Read a matrix as CSR; a dense one in blocks of rows, so that it is never held whole.

    Parameters
    ----------
    path
        Names the file in an error.
    element
        ``X`` or a layer.
    shape
        Of ``obs`` and ``var``.
    rows
        Read no more than so many, and of a dense matrix no more than ``BLOCK`` values; then None is returned for a
        matrix that is stored by columns.

    Raises
    ------
    InputError
        If it is no matrix of numbers, has another shape, or its structure is damaged.
    """
    field = _field(element)
    values = element if isinstance(element, h5py.Dataset) else element.get("data")
    if not isinstance(values, h5py.Dataset) or values.dtype.kind not in "iufb":
        advice = "put the raw counts there" if rows is None else "write the file again"
        raise InputError(f"{path}: {field} is no matrix of numbers; {advice}")
    declared = element.shape if isinstance(element, h5py.Dataset) else _sparse_shape(element)
    if declared is None or tuple(declared) != shape:
        found = "of no shape" if declared is None else " x ".join(map(str, declared))
        raise InputError(
            f"{path}: {field} is {found}, but obs has {shape[0]} rows and var {shape[1]}; write the file again"
        )
    parts = [element] if isinstance(element, h5py.Dataset) else [element.get(name) for name in SPARSE]
    for dataset in parts:
        if not isinstance(dataset, h5py.Dataset):
            raise _damaged(path, field, "data, indices or indptr is missing")
        _refuse_unreadable(path, field, dataset)
    if isinstance(element, h5py.Dataset):
        return _read_dense(element, rows)
    return _read_sparse(path, field, element, shape, rows)


def _read_dense(dataset: h5py.Dataset, rows: int | None) -> sp.csr_matrix:
    step = max(1, BLOCK // max(dataset.shape[1], 1))
    if dataset.dtype == np.float16:  # unknown to scipy
        dataset = dataset.astype(np.float32)
    if rows is not None:
        return sp.csr_matrix(dataset[: min(rows, step)])
    if not dataset.shape[0]:
        return sp.csr_matrix(dataset.shape, dtype=dataset.dtype)
    starts = range(0, dataset.shape[0], step)
    return sp.vstack([sp.csr_matrix(dataset[start : start + step]) for start in starts], format="csr")


def _read_sparse(
    path: Path, field: str, group: h5py.Group, shape: tuple[int, int], rows: int | None
) -> sp.csr_matrix | None:
    layout = str(_attribute(group, "h5sparse_format") or _attribute(group, "encoding-type")).removesuffix("_matrix")
    if layout not in ("csr", "csc"):
        raise _damaged(path, field, f"its encoding is {layout!r}, neither csr_matrix nor csc_matrix")
    major, minor = shape if layout == "csr" else shape[::-1]
    data, indices, pointers = group["data"], group["indices"], group["indptr"]
    if pointers.shape != (major + 1,) or data.ndim != 1 or data.shape != indices.shape:
        raise _damaged(
            path, field, f"indptr has shape {pointers.shape} for {major}, data {data.shape} and indices {indices.shape}"
        )
    if pointers.dtype.kind not in "iu" or indices.dtype.kind not in "iu":
        raise _damaged(path, field, "indptr or indices hold no whole numbers")
    indptr = pointers[()].astype(np.int64)
    if indptr[0] != 0 or indptr[-1] != len(data) or (np.diff(indptr) < 0).any():
        raise _damaged(path, field, f"indptr does not rise from 0 to the {len(data)} stored values")
    if rows is not None:
        if layout == "csc":
            return None
        indptr = indptr[: rows + 1]
        shape = (len(indptr) - 1, shape[1])
    places = indices[: indptr[-1]]
    if len(places) and not 0 <= places.min() <= places.max() < minor:
        wrong = places.min() if places.min() < 0 else places.max()
        raise _damaged(path, field, f"indices hold {wrong}, outside of 0 to {minor - 1}")
    kind = sp.csr_matrix if layout == "csr" else sp.csc_matrix
    return sp.csr_matrix(kind((data[: indptr[-1]], places, indptr), shape=shape))


def _sparse_shape(group: h5py.Group) -> tuple[int, ...] | None:
    declared = group.attrs.get("h5sparse_shape", group.attrs.get("shape"))
    sizes = np.atleast_1d(declared) if declared is not None else np.zeros(0)
    return tuple(map(int, sizes)) if sizes.dtype.kind in "iu" else None


def _refuse_unreadable(path: Path, field: str, dataset: h5py.Dataset) -> None:
    """Refuse values that need a filter h5py lacks, and those that are declared but were never written."""
    filters = dataset.id.get_create_plist()
    for number in range(filters.get_nfilters()):
        code, _, _, name = filters.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            raise InputError(
                f"{path}: {field} is compressed with {name.decode(errors='replace') or code}, which h5py cannot read "
                'alone; write the file with compression="gzip"'
            )
    if not dataset.size:
        return
    if not dataset.id.get_storage_size():
        raise InputError(f"{path}: {field} declares {dataset.size:,} values but holds none; write the file again")
    if dataset.size > MANY and dataset.nbytes > SMALLEST * path.stat().st_size:
        raise InputError(
            f"{path}: {field} declares {dataset.size:,} values, more than the file can hold; write it again"
        )


def _attribute(element: Element, name: str) -> str:
    value = element.attrs.get(name, "")
    return value.decode() if isinstance(value, bytes) else str(value)


def _field(element: Element) -> str:
    name = element.name.lstrip("/")
    return f'layers["{name.removeprefix("layers/")}"]' if name.startswith("layers/") else name


def _damaged(path: Path, field: str, what: str) -> InputError:
    return InputError(f"{path}: {field} is damaged: {what}; fetch or write the file again")


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
