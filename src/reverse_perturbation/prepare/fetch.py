"""Download real cells, or the official checkpoint: reverse-perturbation fetch NAME.

The download is checked against its hash. Cells are made into an .h5ad file of raw counts, which `data.source=h5ad`
reads; the checkpoint is a folder for `scgpt.checkpoint`. An interrupted download resumes, also in a later call.
"""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import anndata as ad
import pooch
import requests
from tqdm import tqdm

from reverse_perturbation.errors import InputError
from reverse_perturbation.prepare import norman_singles, norman_subset, papalexi
from reverse_perturbation.prepare.norman import unpack_norman
from reverse_perturbation.prepare.norman_perturbench import unpack_perturbench
from reverse_perturbation.storage import sha256, write_atomically, write_text

FOLDER = Path("data/raw")
TRIES = 5
TIMEOUT = 60  # seconds without a byte
BLOCK = 1 << 16  # bytes; of a block that was cut nothing is kept

Content = TypeVar("Content")


@dataclass(frozen=True)
class Source:
    """A public file and how to make an .h5ad file of it.

    Without a known hash, that of the first good download is kept beside it.
    """

    about: str
    url: str
    file: str  # the name of the download
    sha256: str | None
    write: Callable[[Path, Path], None]  # makes its second argument, the .h5ad file, of its first, the download
    otherwise: str = ""  # what else one can do when it cannot be downloaded


def converted(
    read: Callable[[Path], Content], convert: Callable[[Content], ad.AnnData]
) -> Callable[[Path, Path], None]:
    """Return the ``write`` of a source that is read whole and then converted."""

    def write(download: Path, result: Path) -> None:
        content = read(download)
        try:
            adata = convert(content)
        except InputError as error:
            raise InputError(f"{download}: {error}") from None
        adata.write_h5ad(result, compression="gzip")

    return write


def _on_github(repository: str, commit: str, path: str) -> str:
    return f"https://raw.githubusercontent.com/{repository}/{commit}/{path}"


SOURCES = {
    # No published hash of it was found, so its content is checked: the cells of each condition, and the genes.
    "norman": Source(
        "Norman et al. 2019 as GEARS has it: 91,205 cells x 5,045 genes, singles and doubles",
        "https://dataverse.harvard.edu/api/access/datafile/6154020",
        "norman.zip",
        None,
        unpack_norman,
        "or `fetch norman_perturbench`, other cells of the same screen",
    ),
    # No mirror of GEARS's file, which has fewer cells and genes. No published hash was found here either.
    "norman_perturbench": Source(
        "all cells of Norman et al. 2019 that scPerturb has, in PerturBench's choice of genes; never tried",
        "https://huggingface.co/datasets/altoslabs/perturbench/resolve/main/norman19_processed.h5ad.gz",
        "norman19_processed.h5ad.gz",
        None,
        unpack_perturbench,
    ),
    "norman_subset": Source(
        "a part of it: 3,375 cells x 500 genes, singles and doubles (1.1 MB)",
        _on_github("altoslabs/perturbench", norman_subset.COMMIT, "src/perturbench/data/resources/devel.h5ad"),
        "perturbench_devel.h5ad",
        "220998f5630c813228c8661c86dd52244b9ac87127511289af90e0d900d8429b",
        converted(ad.read_h5ad, norman_subset.norman_cells),
    ),
    "norman_singles": Source(
        "all its singles and controls: 65,359 cells x 23 genes (0.8 MB)",
        _on_github("logannye/CausalHG", norman_singles.COMMIT, "demo/data/norman_cells.tsv.gz"),
        "norman_cells.tsv.gz",
        "4bcad1982ecaa103db7d1efac15d9d82f4a808f5c7ffeb2bdc9fa5bd9a8723f7",
        converted(norman_singles.read_singles, norman_singles.singles_cells),
    ),
    "papalexi": Source(
        "Papalexi et al. 2021: 20,729 cells x 299 genes, knock-outs of 25 genes (1.4 MB)",
        _on_github("Katsevich-Lab/sceptredata", papalexi.COMMIT, "data/lowmoi_example_data.rda"),
        "papalexi_lowmoi.rda",
        "e3f8ad09bb4b1d0deeeec2850a2d96f8f5062fef31a9ab1cc080e60560421b6a",
        converted(papalexi.read_papalexi, papalexi.papalexi_cells),
    ),
}


@dataclass(frozen=True)
class Folder:
    """A public folder of files, name -> sha256, that are used as they are."""

    about: str
    url: str
    files: Mapping[str, str]


FOLDERS = {
    "scgpt_human": Folder(
        "the official checkpoint, scGPT whole-human: 12 layers of width 512, 60,697 tokens (206 MB)",
        "https://huggingface.co/u-cellm/scGPT-whole-human/resolve/main",  # byte-identical to the authors' files
        {
            "args.json": "c18e075e018140cb8b2d9029387b9de26607a5ce6a8ccabd6ead70cd76b95d60",
            "vocab.json": "acca93d114ca62c3f0f50debbd23e8c87f0714f4737764454f6b2b13f2e8580f",
            "best_model.pt": "6cb5d451ab5c4b33eb673adbe4fddc61d2389df1b89b7651a9fe2e557572b922",
        },
    ),
}


def fetch(name: str, folder: str | Path = FOLDER, url: str | None = None) -> Path:
    """Download a source of :data:`SOURCES` and make an .h5ad file of raw counts of it, or a folder of :data:`FOLDERS`.

    Parameters
    ----------
    name
        A key of :data:`SOURCES` or :data:`FOLDERS`.
    folder
        Where the download and the result are put; an existing download is checked and used.
    url
        A mirror to take the same file from; of a folder, the address before each file's name.

    Returns
    -------
    pathlib.Path
        ``folder/name.h5ad``, or the folder ``folder/name``.

    Raises
    ------
    InputError
        If the download fails :data:`TRIES` times, is not the file it should be, or cannot be written.
    """
    folder = Path(folder)
    try:
        if name in FOLDERS:
            public = FOLDERS[name]
            for part, digest in public.files.items():
                _download(folder / name / part, digest, f"{url or public.url}/{part}")
            return folder / name
        source, result = SOURCES[name], folder / f"{name}.h5ad"
        file = folder / source.file
        known = source.sha256
        if known is None and _recorded(file).exists():
            known = _recorded(file).read_text(encoding="ascii").strip()
        download = _download(file, known, url or source.url, source.otherwise)
        with write_atomically(result) as temporary:
            source.write(download, temporary)
        if source.sha256 is None:
            write_text(_recorded(download), f"{sha256(download)}\n")
    except OSError as error:
        raise InputError(f"{folder}: {error}; free space there, or choose another folder with --folder") from None
    return result


def _recorded(download: Path) -> Path:
    return download.with_name(f"{download.name}.sha256")


def _download(file: Path, known: str | None, url: str, otherwise: str = "") -> Path:
    """Download a file, checked against its sha256 if one is known, unless it is there already."""
    registry = pooch.create(
        file.parent, base_url="", registry={file.name: known}, urls={file.name: url}, retry_if_failed=TRIES - 1
    )
    by_hand = f"or download it with a browser and put it at {file}" + (f", {otherwise}" if otherwise else "")
    try:
        return Path(registry.fetch(file.name, downloader=download_resuming))
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


def _default_folder() -> Path:
    if not FOLDER.is_dir():
        raise InputError(f"{FOLDER}: no such folder in {Path.cwd()}; run from the repository root, or name a --folder")
    return FOLDER


def main(argv: Sequence[str] | None = None) -> None:
    """Download and convert; a user's mistake ends it with one line on standard error and exit code 2."""
    names = {name: source.about for name, source in SOURCES.items()}
    names |= {name: folder.about for name, folder in FOLDERS.items()}
    width = max(map(len, names))
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(["names:", *(f"  {name:{width}}  {about}" for name, about in names.items())]),
    )
    parser.add_argument("name", choices=names)
    parser.add_argument("--folder", help="where to put it; default: data/raw")
    parser.add_argument("--url", help="a mirror of the same file")
    args = parser.parse_args(argv)
    try:
        result = fetch(args.name, args.folder or _default_folder(), args.url)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    if args.name in FOLDERS:
        print(f"fetch: {result}, each file with its published sha256")
        print(f"fetch: use it with `dvc exp run -S scgpt.checkpoint={result}`")
        return
    print(f"fetch: {result}, sha256 of the download {sha256(result.parent / SOURCES[args.name].file)}")
    print(f"fetch: use it with `dvc exp run -S data.source=h5ad -S data.path={result}`")


if __name__ == "__main__":
    main()
