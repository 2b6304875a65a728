"""PerturBench's file of Norman et al. 2019: the cells of scPerturb, normalised, with the counts in a layer."""

import gzip
import shutil
import zlib
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from reverse_perturbation.conditions import CONTROL
from reverse_perturbation.errors import InputError
from reverse_perturbation.prepare.norman_subset import gears_label

LARGEST = 16 << 30  # bytes unpacked
BLOCK = 1 << 20  # bytes
AGAIN = "delete it and fetch it again"


def unpack_perturbench(download: Path, result: Path) -> None:
    """Unpack the file and keep of it what prepare reads: raw counts, conditions in GEARS's labels, depth, lanes.

    Raises
    ------
    InputError
        If the file is no gzip of an .h5ad file, unpacks to more than :data:`LARGEST` bytes, or lacks the counts or
        a column.
    """
    unpacked = result.with_suffix(".unpacked")
    try:
        _unpack(download, unpacked)
        source = ad.read_h5ad(unpacked)
    except (gzip.BadGzipFile, zlib.error, EOFError, ValueError, KeyError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's, not the file's
        if isinstance(error, InputError):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{download}: not a gzipped .h5ad file ({reason}); {AGAIN}") from None
    finally:
        unpacked.unlink(missing_ok=True)
    try:
        perturbench_cells(source).write_h5ad(result, compression="gzip")
    except InputError as error:
        raise InputError(f"{download}: {error}") from None


def _unpack(download: Path, unpacked: Path) -> None:
    limit = min(LARGEST, shutil.disk_usage(unpacked.parent).free)
    with gzip.open(download) as packed, unpacked.open("wb") as file:
        while block := packed.read(BLOCK):
            if file.tell() + len(block) > limit:
                raise InputError(f"{download}: unpacks to more than {limit:,} bytes, which is the room there is")
            file.write(block)


def perturbench_cells(source: ad.AnnData) -> ad.AnnData:
    """Give the cells GEARS's labels; the normalised X is left out.

    Raises
    ------
    InputError
        Naming what the file lacks.
    """
    lacking = [f"obs[{name!r}]" for name in ("condition", "ncounts") if name not in source.obs]
    if "counts" not in source.layers:
        lacking.insert(0, 'layers["counts"], without which X is normalised only')
    if lacking:
        raise InputError(f"it lacks {', '.join(lacking)}; `fetch norman` or norman_subset instead")
    labels = source.obs["condition"].astype(str).map(gears_label)
    obs = pd.DataFrame(
        {
            "condition": pd.Categorical(labels),
            "control": (labels == CONTROL).astype(np.int64),
            "total_counts": source.obs["ncounts"].to_numpy(dtype=np.float32),
        },
        index=source.obs_names,
    )
    lanes = source.obs_names.str.extract(r"-(\d+)$", expand=False)
    if not lanes.isna().any():
        obs["gem_group"] = lanes.astype(np.int64)
    counts = sp.csr_matrix(source.layers["counts"], dtype=np.float32)
    about = {
        "dataset": "Norman et al. 2019 (GSE133344), the cells of scPerturb",
        "file": "altoslabs/perturbench norman19_processed.h5ad.gz on Hugging Face",
        "note": "raw counts of its layer; other cells and genes than GEARS's file",
    }
    genes = list(source.var_names)
    var = pd.DataFrame({"gene_name": genes}, index=genes)
    return ad.AnnData(obs=obs, var=var, layers={"counts": counts}, uns={"source": about})
