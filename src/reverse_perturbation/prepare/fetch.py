"""Download real cells: reverse-perturbation fetch norman | norman_subset.

``norman`` is GEARS's perturb_processed.h5ad of Norman et al. 2019, ``norman_subset`` a part of it that is public as
1.1 MB. An interrupted download resumes, also in a later call.
"""

import argparse
import os
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import h5py
import pandas as pd
import pooch
import requests
from anndata.io import read_elem
from tqdm import tqdm

from reverse_perturbation.errors import InputError
from reverse_perturbation.prepare.norman_subset import COMMIT, norman_cells
from reverse_perturbation.storage import sha256, write_atomically, write_text

TRIES = 5
TIMEOUT = 60  # seconds without a byte
BLOCK = 1 << 16  # bytes; of a block that was cut nothing is kept
CONDITIONS = Path("data/norman_conditions.csv")  # every label of the full file and its cells
GENES = 5045


@dataclass(frozen=True)
class Source:
    """A file on the web; without a known hash, that of the first good download is kept beside it."""

    url: str
    file: str
    sha256: str | None


SOURCES = {
    # No published hash of it was found, so its content is checked: the cells of each condition, and the genes.
    "norman": Source("https://dataverse.harvard.edu/api/access/datafile/6154020", "norman.zip", None),
    "norman_subset": Source(
        f"https://raw.githubusercontent.com/altoslabs/perturbench/{COMMIT}/src/perturbench/data/resources/devel.h5ad",
        "perturbench_devel.h5ad",
        "220998f5630c813228c8661c86dd52244b9ac87127511289af90e0d900d8429b",
    ),
}


def fetch(name: str, folder: str | Path = "data/raw", url: str | None = None) -> Path:
    """Download a source of :data:`SOURCES` and make an .h5ad file of raw counts of it.

    Parameters
    ----------
    name
        ``norman`` or ``norman_subset``.
    folder
        Where the download and the result are put; an existing download is checked and used.
    url
        A mirror to take the same file from.

    Returns
    -------
    pathlib.Path
        ``folder/name.h5ad``.

    Raises
    ------
    InputError
        If the download fails :data:`TRIES` times, or is not the file it should be.
    """
    source, folder = SOURCES[name], Path(folder)
    result = folder / f"{name}.h5ad"
    download = _download(source, folder, url or source.url)
    if name == "norman":
        _unzip(download, result)
        write_text(_recorded(download), f"{sha256(download)}\n")
    else:
        with write_atomically(result) as temporary:
            norman_cells(ad.read_h5ad(download)).write_h5ad(temporary, compression="gzip")
    return result


def _recorded(download: Path) -> Path:
    return download.with_name(f"{download.name}.sha256")


def _download(source: Source, folder: Path, url: str) -> Path:
    file = folder / source.file
    known = source.sha256
    if known is None and _recorded(file).exists():
        known = _recorded(file).read_text(encoding="ascii").strip()
    registry = pooch.create(
        folder, base_url="", registry={source.file: known}, urls={source.file: url}, retry_if_failed=TRIES - 1
    )
    by_hand = f"or download it with a browser and put it at {file}"
    try:
        return Path(registry.fetch(source.file, downloader=download_resuming))
    except requests.RequestException as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{url}: download failed after {TRIES} attempts ({reason}); try again later, {by_hand}"
        ) from None
    except ValueError as error:  # pooch's, of a wrong hash
        raise InputError(f"{url}: {error}; name another source of the file with --url, {by_hand}") from None


def download_resuming(url: str, output_file: str, registry: pooch.Pooch) -> None:
    """Download as pooch wants it, through a file ``.part`` that a later try goes on with.

    Raises
    ------
    requests.RequestException
        If the server cannot be reached, refuses, or cuts the connection; what has come so far is kept.
    """
    (name,) = registry.registry
    part = Path(registry.abspath) / f"{name}.part"
    have = part.stat().st_size if part.exists() else 0
    # The response must be the file's own bytes: a compressed stream has other offsets.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if answer.status_code == requests.codes.requested_range_not_satisfiable:
            part.unlink()  # not a part of this file
        answer.raise_for_status()
        if answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            mode = "ab"
        elif answer.status_code == requests.codes.ok:
            mode, have = "wb", 0
        else:
            raise requests.HTTPError(f"the server answered {answer.status_code} instead of the file")
        length = int(answer.headers.get("Content-Length", 0))
        bar = tqdm(desc=name, initial=have, total=have + length or None, unit="B", unit_scale=True, file=sys.stderr)
        with part.open(mode) as file, bar:
            for block in answer.iter_content(BLOCK):
                file.write(block)
                bar.update(len(block))
    os.replace(part, output_file)


def _unzip(download: Path, result: Path) -> None:
    """Write the archive's one .h5ad file, checked."""
    advice = (
        f"delete {download}, fetch it again, or get it with a browser: the server sends programs a challenge at times"
    )
    try:
        with zipfile.ZipFile(download) as archive:
            (member,) = (name for name in archive.namelist() if name.endswith("perturb_processed.h5ad"))
            with write_atomically(result) as temporary:
                archive.extract(member, temporary.parent)  # its CRC is checked
                os.replace(temporary.parent / member, temporary)
                _check_norman(temporary)
    except (zipfile.BadZipFile, ValueError, OSError, KeyError) as error:
        raise InputError(f"{download}: not GEARS's archive of Norman et al. 2019 ({error}); {advice}") from None


def _check_norman(path: Path) -> None:
    """Raise ValueError unless the file has the cells of each condition and the genes it should have."""
    expected = pd.read_csv(CONDITIONS).set_index("condition")["cells"]
    with h5py.File(path) as file:
        cells = read_elem(file["obs"])["condition"].astype(str).value_counts()
        genes = len(read_elem(file["var"]))
    if cells.to_dict() != expected.to_dict() or genes != GENES:
        raise ValueError(
            f"{cells.sum():,} cells of {len(cells)} labels x {genes:,} genes, expected {expected.sum():,} cells of "
            f"{len(expected)} labels as in {CONDITIONS} x {GENES:,}"
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Download and convert; errors are one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=SOURCES)
    parser.add_argument("--folder", default="data/raw")
    parser.add_argument("--url", help="a mirror of the same file")
    args = parser.parse_args(argv)
    try:
        result = fetch(args.name, args.folder, args.url)
    except InputError as error:
        sys.exit(f"error: {error}")
    print(f"fetch: {result}, sha256 of the download {sha256(Path(args.folder) / SOURCES[args.name].file)}")
    print(f"fetch: use it with `dvc exp run -S data.source=h5ad -S data.path={result}`")


if __name__ == "__main__":
    main()
