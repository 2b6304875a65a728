"""Tiny made-up files in the layouts of the public sources, and where the real ones lie."""

import bz2
import gzip
import struct
import zipfile
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata.io import write_elem

from reverse_perturbation.prepare import norman, norman_singles

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"

# counts of genes A, B, C and of guides Ag1, Ag2, Bg1, NTg1 in five cells; the third has no counts
GENE_COUNTS = np.array([[3, 0, 1], [0, 2, 0], [0, 0, 0], [5, 5, 0], [0, 0, 1]])
GUIDE_COUNTS = np.array([[0, 9, 1, 0], [0, 0, 7, 0], [6, 0, 0, 0], [1, 0, 0, 8], [4, 0, 4, 0]])
GUIDES = ["Ag1", "Ag2", "Bg1", "NTg1"]
TARGETS = ["A", "A", "B", "non-targeting"]
REPLICATES = ["rep_2", "rep_1", "rep_1", "rep_1", "rep_3"]


def shared(name: str) -> Path:
    """Return a file of the shared folder, or skip the test."""
    if not (SHARED / name).exists():
        pytest.skip(f"{name} is not beside the checkout")
    return SHARED / name


def norman_subset_h5ad(folder: Path) -> bytes:
    """Return a file as PerturBench's: two cells of Norman's, one of another data set, about 100 UMIs each."""
    logs = sp.csr_matrix(np.log1p(np.array([[1.0, 0, 2], [3, 0, 0], [0, 4, 1]]) * 100))
    obs = pd.DataFrame(
        {
            "dataset": ["norman19", "other", "norman19"],
            "condition": ["A", "B", "control"],
            "ncounts": [100.0, 100.0, 101.0],
        },
        index=["AA-1", "AC-1", "AG-2"],
    )
    path = folder / "devel.h5ad"
    ad.AnnData(X=logs, obs=obs, var=pd.DataFrame(index=["A", "B", "C"])).write_h5ad(path)
    return path.read_bytes()


def norman_zip(folder: Path, genes: int = norman.GENES, member: str = "norman/perturb_processed.h5ad") -> Path:
    """Write an archive laid out as GEARS's, its cells without counts."""
    table = pd.read_csv(ROOT / norman.CONDITIONS)
    labels = table["condition"].repeat(table["cells"]).to_numpy()
    obs = pd.DataFrame({"condition": pd.Categorical(labels)}, index=np.arange(len(labels)).astype(str))
    file, path = folder / "perturb_processed.h5ad", folder / "norman_source.zip"
    with h5py.File(file, "w") as content:
        write_elem(content, "obs", obs)
        write_elem(content, "var", pd.DataFrame({"gene_name": np.arange(genes).astype(str)}))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("norman/go.csv", "")
        archive.write(file, member)
    return path


def singles_table() -> pd.DataFrame:
    """Four cells; the third has a target under its former name."""
    return pd.DataFrame(
        {
            "arm": ["NTC", "TSC22D1", "KIAA1804", "NTC"],
            "gemgroup": [1, 1, 8, 2],
            "total_umi": [19413, 13474, 6842, 5000],
            "KLF1": [1, 0, 0, 0],
            "GATA1": [2, 1, 0, 0],
        }
    )


def singles_tsv_gz(table: pd.DataFrame | None = None) -> bytes:
    """Return a file as CausalHG's."""
    table = singles_table() if table is None else table
    assert list(table.columns[:3]) == norman_singles.ANNOTATIONS
    return gzip.compress(table.to_csv(sep="\t", index=False).encode(), mtime=0)


def papalexi_rda(name: str = "lowmoi_example_data") -> bytes:
    """Return a file as sceptre's of that commit: one list of two sparse matrices and two data frames, bzip2."""
    covariates = r_frame({"bio_rep": r_factor(REPLICATES)}, row_names=r_integers([1, 2, 4, 5, 9]))
    guides = r_frame({"grna_id": r_strings(GUIDES), "grna_target": r_strings(TARGETS)})
    parts = {
        "response_matrix": r_matrix(GENE_COUNTS.T, ["A", "B", "C"]),
        "grna_matrix": r_matrix(GUIDE_COUNTS.T, GUIDES),
        "extra_covariates": covariates,
        "grna_target_data_frame": guides,
    }
    header = b"RDX2\nX\n" + struct.pack(">3i", 2, 0x40200, 0x20300)
    return bz2.compress(header + r_pairs({name: r_list(parts.values(), {"names": r_strings(parts)})}))


# R's serialisation: a word of type and flags (object, attributes, tag), the content, the attributes.
OBJECT, ATTRIBUTES, TAG, ASCII = 1 << 8, 1 << 9, 1 << 10, 64 << 12
SYMBOL, PAIRS, CHARACTERS, INTEGERS, REALS, STRINGS, LIST, S4, NIL = 1, 2, 9, 13, 14, 16, 19, 25, 254


def r_word(number: int) -> bytes:
    return struct.pack(">i", number)


def r_characters(text: str) -> bytes:
    return r_word(CHARACTERS | ASCII) + r_word(len(text)) + text.encode("ascii")


def r_pairs(content: dict[str, bytes]) -> bytes:
    pairs = [r_word(PAIRS | TAG) + r_word(SYMBOL) + r_characters(name) + value for name, value in content.items()]
    return b"".join(pairs) + r_word(NIL)


def r_vector(kind: int, length: int, content: bytes, attributes: dict[str, bytes] | None = None) -> bytes:
    flags = (ATTRIBUTES if attributes else 0) | (OBJECT if attributes and "class" in attributes else 0)
    return r_word(kind | flags) + r_word(length) + content + (r_pairs(attributes) if attributes else b"")


def r_integers(values, attributes=None) -> bytes:
    return r_vector(INTEGERS, len(values), np.asarray(values, dtype=">i4").tobytes(), attributes)


def r_reals(values) -> bytes:
    return r_vector(REALS, len(values), np.asarray(values, dtype=">f8").tobytes())


def r_strings(values) -> bytes:
    return r_vector(STRINGS, len(values), b"".join(map(r_characters, values)))


def r_list(values, attributes=None) -> bytes:
    return r_vector(LIST, len(values), b"".join(values), attributes)


def r_factor(values) -> bytes:
    levels = sorted(set(values))
    codes = [levels.index(value) + 1 for value in values]
    return r_integers(codes, {"levels": r_strings(levels), "class": r_strings(["factor"])})


def r_frame(columns: dict[str, bytes], row_names: bytes | None = None) -> bytes:
    """Return a data frame; without row names those of R's short form, NA and the negative number of rows."""
    names = r_integers([-(2**31), -len(GUIDES)]) if row_names is None else row_names
    attributes = {"names": r_strings(columns), "row.names": names, "class": r_strings(["data.frame"])}
    return r_list(columns.values(), attributes)


def r_matrix(dense: np.ndarray, row_names: list[str]) -> bytes:
    """Return a dgTMatrix: triplets by columns, no names of columns."""
    columns, rows = np.nonzero(dense.T)
    parts = {
        "i": r_integers(rows),
        "j": r_integers(columns),
        "Dim": r_integers(dense.shape),
        "Dimnames": r_list([r_strings(row_names), r_word(NIL)]),
        "x": r_reals(dense[rows, columns]),
        "factors": r_list([]),
        "class": r_strings(["dgTMatrix"]),
    }
    return r_word(S4 | OBJECT | ATTRIBUTES) + r_pairs(parts)
