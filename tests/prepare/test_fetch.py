"""Downloads from a server on this machine: whole, cut, wrong, refused; nothing here needs a network."""

import gzip
import hashlib
import re
import threading
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from reverse_perturbation.cli import main as command
from reverse_perturbation.config import load_params
from reverse_perturbation.errors import InputError
from reverse_perturbation.models.scgpt.encoder.backbone import ScgptBackbone
from reverse_perturbation.models.scgpt.encoder.checkpoint import load_checkpoint, save_checkpoint
from reverse_perturbation.models.scgpt.encoder.published import KNOWN
from reverse_perturbation.models.scgpt.pretrain import small_architecture, small_vocabulary
from reverse_perturbation.prepare import fetch, norman_perturbench
from reverse_perturbation.prepare.h5ad import read_source
from tests.prepare.sources import (
    ROOT,
    norman_subset_h5ad,
    norman_zip,
    papalexi_rda,
    shared,
    singles_table,
    singles_tsv_gz,
)

NAME = "norman_subset"


class Handler(BaseHTTPRequestHandler):
    """Serves one file; the first answers end early, and ranges are heeded or not."""

    def __init__(self, server: "Server", *args):
        self.web = server
        super().__init__(*args)

    def do_GET(self):
        self.web.asked.append(self.headers.get("Range"))
        if self.web.status != 200:
            self.send_response(self.web.status)
            self.end_headers()
            return
        start = 0
        content = self.web.files.get(self.path.rpartition("/")[2], self.web.content)
        if self.web.ranges and (asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))):
            start = int(asked[1])
            if start >= len(content):
                self.send_error(416)
                return
        body = content[start:]
        self.send_response(206 if start else 200)
        if start:
            last = len(content) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(content)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if len(self.web.asked) <= self.web.cuts:
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Server:
    def __init__(self, content: bytes):
        self.content, self.cuts, self.ranges, self.status = content, 0, True, 200
        self.asked: list[str | None] = []
        self.files: dict[str, bytes] = {}  # other content by the last part of the address
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, self))
        self.url = f"http://127.0.0.1:{self.http.server_port}/file"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    """Tries follow each other without a pause, blocks are small, paths are those of the repository."""
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    monkeypatch.setattr(fetch, "BLOCK", 1000)
    monkeypatch.chdir(ROOT)


@pytest.fixture
def serve(monkeypatch):
    servers = []

    def start(content: bytes, name: str = NAME) -> Server:
        servers.append(Server(content))
        source = fetch.SOURCES[name]
        known = source.sha256 and hashlib.sha256(content).hexdigest()
        source = replace(source, url=servers[-1].url, sha256=known)
        monkeypatch.setitem(fetch.SOURCES, name, source)
        return servers[-1]

    yield start
    for server in servers:
        server.http.shutdown()
        server.http.server_close()


@pytest.fixture(scope="module")
def devel(tmp_path_factory) -> bytes:
    return norman_subset_h5ad(tmp_path_factory.mktemp("devel"))


def test_a_file_is_downloaded_and_converted(tmp_path, serve, devel):
    server = serve(devel)
    cells = read_source(fetch.fetch(NAME, tmp_path))
    assert cells.layers["counts"].toarray().tolist() == [[1, 0, 2], [0, 4, 1]]
    assert server.asked == [None]
    fetch.fetch(NAME, tmp_path)
    assert server.asked == [None], "what is there is not downloaded again"


def test_a_cut_connection_is_resumed_where_it_stopped(tmp_path, serve, devel):
    server = serve(devel)
    server.cuts = 2
    fetch.fetch(NAME, tmp_path)
    first = len(devel) // 2 // 1000 * 1000
    second = first + (len(devel) - first) // 2 // 1000 * 1000
    assert server.asked == [None, f"bytes={first}-", f"bytes={second}-"]
    assert (tmp_path / "perturbench_devel.h5ad").read_bytes() == devel
    assert not list(tmp_path.glob("*.part"))


def test_a_later_call_goes_on_with_what_an_earlier_one_left(tmp_path, serve, devel):
    server = serve(devel)
    server.cuts = fetch.TRIES
    with pytest.raises(InputError, match=r"download failed after 5 attempts.*put it at .*perturbench_devel\.h5ad$"):
        fetch.fetch(NAME, tmp_path)
    left = (tmp_path / "perturbench_devel.h5ad.part").stat().st_size
    assert 0 < left < len(devel)
    fetch.fetch(NAME, tmp_path)
    assert server.asked[-1] == f"bytes={left}-"


def test_a_server_without_ranges_sends_it_again_from_the_start(tmp_path, serve, devel):
    server = serve(devel)
    server.cuts, server.ranges = 1, False
    fetch.fetch(NAME, tmp_path)
    assert (tmp_path / "perturbench_devel.h5ad").read_bytes() == devel


@pytest.mark.parametrize("longer", [True, False])
def test_the_rest_of_another_file_is_not_taken(tmp_path, serve, devel, longer):
    """Its hash is wrong, or the server has nothing behind its end: both start anew."""
    (tmp_path / "perturbench_devel.h5ad.part").write_bytes(b"x" * (len(devel) + 1 if longer else 10))
    serve(devel)
    fetch.fetch(NAME, tmp_path)
    assert (tmp_path / "perturbench_devel.h5ad").read_bytes() == devel


def test_a_wrong_hash_is_told_and_nothing_is_left(tmp_path, serve, devel):
    server = serve(devel)
    server.content = devel[:-1] + b"?"
    with pytest.raises(InputError, match=r"SHA256 hash.*does not match the known hash.*--url"):
        fetch.fetch(NAME, tmp_path)
    assert len(server.asked) == fetch.TRIES
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("status", [202, 403, 500])
def test_a_server_that_refuses_is_told(tmp_path, serve, devel, status):
    """202 is what a challenge for browsers comes with."""
    serve(devel).status = status
    with pytest.raises(InputError, match=f"download failed after 5 attempts .*{status}"):
        fetch.fetch(NAME, tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_a_network_the_command_ends_with_one_line(tmp_path, serve, devel, capsys):
    server = serve(devel)
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(SystemExit, match="2"):
        command(["fetch", NAME, "--folder", str(tmp_path)])
    error = capsys.readouterr().err
    assert re.match(r"error: http://127\.0\.0\.1:\d+/file: download failed after 5 attempts", error)
    assert error.count("\n") == 1


def test_the_command_takes_a_mirror_and_says_what_to_do_next(tmp_path, serve, devel, capsys):
    server = serve(devel)
    fetch.main([NAME, "--folder", str(tmp_path), "--url", server.url])
    said = capsys.readouterr().out
    assert hashlib.sha256(devel).hexdigest() in said
    assert f"-S data.path={tmp_path / 'norman_subset.h5ad'}" in said


@pytest.mark.parametrize(
    ("name", "content", "counts", "conditions"),
    [
        (
            "norman_singles",
            singles_tsv_gz(),
            [[1, 2], [0, 1], [0, 0], [0, 0]],
            ["ctrl", "TSC22D1+ctrl", "MAP3K21+ctrl", "ctrl"],
        ),
        ("papalexi", papalexi_rda(), [[3, 0, 1], [0, 2, 0], [5, 5, 0], [0, 0, 1]], None),
    ],
)
def test_other_sources_are_downloaded_and_converted_alike(tmp_path, serve, name, content, counts, conditions):
    server = serve(content, name)
    result = fetch.fetch(name, tmp_path)
    assert result == tmp_path / f"{name}.h5ad"
    adata = read_source(result)
    assert adata.layers["counts"].toarray().tolist() == counts
    assert list(adata.obs["condition"]) == (conditions or ["A+ctrl", "B+ctrl", "ctrl", "A+ctrl"])
    server.content = content + b"?"
    with pytest.raises(InputError, match="does not match the known hash"):
        fetch.fetch(name, tmp_path / "again")


def test_what_cannot_be_converted_is_told_with_the_name_of_the_download(tmp_path, serve):
    serve(singles_tsv_gz(singles_table().assign(total_umi=1)), "norman_singles")
    with pytest.raises(InputError, match=r"norman_cells\.tsv\.gz: the counts of 1 cells add up to more"):
        fetch.fetch("norman_singles", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["norman_cells.tsv.gz"]


def test_the_full_file_is_unpacked_and_its_hash_kept(tmp_path, serve):
    content = norman_zip(tmp_path).read_bytes()
    server = serve(content, "norman")
    folder = tmp_path / "raw"
    fetch.fetch("norman", folder)
    assert sorted(path.name for path in folder.iterdir()) == ["norman.h5ad", "norman.zip", "norman.zip.sha256"]
    assert (folder / "norman.zip.sha256").read_text() == hashlib.sha256(content).hexdigest() + "\n"
    (folder / "norman.zip").unlink()
    server.content = content[:-1] + b"?"
    with pytest.raises(InputError, match="does not match the known hash"):
        fetch.fetch("norman", folder)


def test_what_is_not_the_full_file_leaves_the_download_alone(tmp_path, serve):
    serve(norman_zip(tmp_path, genes=7).read_bytes(), "norman")
    folder = tmp_path / "raw"
    with pytest.raises(InputError, match="x 7 genes, expected"):
        fetch.fetch("norman", folder)
    assert [path.name for path in folder.iterdir()] == ["norman.zip"]


def perturbench_gz(folder, **changes) -> bytes:
    counts = sp.csr_matrix(np.array([[1.0, 0, 2], [0, 4, 1], [3, 0, 0]]))
    obs = pd.DataFrame(
        {"condition": ["A", "A+B", "control"], "ncounts": [9.0, 8.0, 7.0]}, index=["AA-1", "AC-2", "AG-1"]
    )
    given = {"X": counts.log1p(), "obs": obs, "layers": {"counts": counts}} | changes
    ad.AnnData(var=pd.DataFrame(index=["A", "B", "C"]), **given).write_h5ad(folder / "source.h5ad")
    return gzip.compress((folder / "source.h5ad").read_bytes())


def test_perturbench_s_file_has_its_counts_in_a_layer(tmp_path, serve):
    serve(perturbench_gz(tmp_path), "norman_perturbench")
    folder = tmp_path / "raw"
    adata = read_source(fetch.fetch("norman_perturbench", folder))
    assert adata.layers["counts"].toarray().tolist() == [[1, 0, 2], [0, 4, 1], [3, 0, 0]]
    assert list(adata.obs["condition"]) == ["A+ctrl", "A+B", "ctrl"]
    assert list(adata.obs["gem_group"].astype(int)) == [1, 2, 1]
    assert list(adata.obs["total_counts"]) == [9, 8, 7]
    names = ["norman19_processed.h5ad.gz", "norman19_processed.h5ad.gz.sha256", "norman_perturbench.h5ad"]
    assert sorted(path.name for path in folder.iterdir()) == names


def test_what_perturbench_s_file_lacks_is_said_in_one_line(tmp_path, serve, monkeypatch):
    without = pd.DataFrame({"condition": ["A", "A+B", "control"]}, index=["AA-1", "AC-2", "AG-1"])
    good = perturbench_gz(tmp_path)
    for content, message in (
        (perturbench_gz(tmp_path, layers={}), r'gz: it lacks layers\["counts"\], without which X is normalised only; '),
        (perturbench_gz(tmp_path, obs=without), r"gz: it lacks obs\['ncounts'\]; `fetch norman` or norman_subset"),
        (good[:-40], r"gz: not a gzipped \.h5ad file \(Compressed file ended"),
        (gzip.compress(b"text"), r"gz: not a gzipped \.h5ad file \(.*signature not found"),
        (b"<html>", r"gz: not a gzipped \.h5ad file \(Not a gzipped file"),
        (gzip.compress(bytes(10**6)), r"gz: unpacks to more than 100,000 bytes"),
    ):
        monkeypatch.setattr(norman_perturbench, "LARGEST", 100_000)
        serve(content, "norman_perturbench")
        folder = tmp_path / hashlib.sha256(content).hexdigest()
        with pytest.raises(InputError, match=message) as error:
            fetch.fetch("norman_perturbench", folder)
        assert "\n" not in str(error.value)
        assert [path.name for path in folder.iterdir()] == ["norman19_processed.h5ad.gz"]


def test_when_the_full_file_cannot_be_had_another_one_is_named(tmp_path, serve):
    serve(b"", "norman").status = 202
    with pytest.raises(
        InputError, match=r"norman\.zip, or `fetch norman_perturbench`, other cells of the same screen$"
    ):
        fetch.fetch("norman", tmp_path)


def test_a_folder_that_cannot_be_written_is_told(tmp_path, serve, devel):
    serve(devel)
    (tmp_path / "raw").write_text("a file")
    with pytest.raises(InputError, match=r"raw: .*free space there, or choose another folder with --folder"):
        fetch.fetch(NAME, tmp_path / "raw")


def test_outside_the_root_nothing_is_downloaded(tmp_path, serve, devel, monkeypatch, capsys):
    server = serve(devel)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        command(["fetch", NAME])
    assert capsys.readouterr().err.startswith(
        f"error: data/raw: no such folder in {tmp_path}; run from the repository root"
    )
    assert not server.asked
    assert not list(tmp_path.iterdir())


def test_every_source_is_a_fixed_version():
    """A commit in the address and a hash, or a check of the content."""
    for name, source in fetch.SOURCES.items():
        if not name.startswith("norman") or name in ("norman_subset", "norman_singles"):
            assert re.search(r"^https://raw\.githubusercontent\.com/[\w-]+/[\w-]+/[0-9a-f]{40}/", source.url)
            assert re.fullmatch("[0-9a-f]{64}", source.sha256)
    assert len({source.file for source in fetch.SOURCES.values()}) == len(fetch.SOURCES)


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("norman_subset", "perturbench_devel.h5ad", "norman_subset.h5ad"),
        ("norman_singles", "norman_cells_23genes_source.tsv.gz", "norman_singles_23genes.h5ad"),
        ("papalexi", "papalexi_lowmoi.rda", "papalexi.h5ad"),
    ],
)
def test_the_public_file_gives_the_cells_the_results_are_of(tmp_path, serve, name, source, expected):
    """Counts, labels, lanes, totals and order of the real files."""
    known = fetch.SOURCES[name].sha256
    serve(shared(source).read_bytes(), name)
    assert fetch.SOURCES[name].sha256 == known
    found, expected = ad.read_h5ad(fetch.fetch(name, tmp_path)), ad.read_h5ad(shared(expected))
    assert (found.layers["counts"] != expected.layers["counts"]).nnz == 0
    assert found.X.nnz == expected.X.nnz
    np.testing.assert_allclose(found.X.data, expected.X.data, rtol=1e-6)
    pd.testing.assert_frame_equal(found.obs.astype(str), expected.obs.astype(str))
    assert list(found.var["gene_name"]) == list(expected.var["gene_name"])


@pytest.fixture
def mirror(tmp_path_factory, serve, devel, monkeypatch):
    """A server with a checkpoint in the official layout, the hashes of whose files are taken for the published ones."""
    folder = tmp_path_factory.mktemp("mirror") / "checkpoint"
    architecture = small_architecture(load_params().pretrain.model_copy(update={"width": 8, "heads": 2}), "binned")
    vocabulary = small_vocabulary(np.array(["A", "B"]))
    save_checkpoint(folder, ScgptBackbone(architecture, vocabulary), vocabulary, architecture)
    server = serve(devel)
    server.files = {name: (folder / name).read_bytes() for name in fetch.FOLDERS["scgpt_human"].files}
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in server.files.items()}
    folder = replace(fetch.FOLDERS["scgpt_human"], url=server.url.removesuffix("/file"), files=hashes)
    monkeypatch.setitem(fetch.FOLDERS, "scgpt_human", folder)
    return server


def test_the_checkpoint_is_a_folder_that_loads(tmp_path, mirror, capsys):
    assert sorted(mirror.files) == ["args.json", "best_model.pt", "vocab.json"]
    fetch.main(["scgpt_human", "--folder", str(tmp_path)])
    folder = tmp_path / "scgpt_human"
    assert f"-S scgpt.checkpoint={folder}`" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == mirror.files
    assert load_checkpoint(folder).report.missing == ()
    assert len(mirror.asked) == 3
    fetch.fetch("scgpt_human", tmp_path)
    assert len(mirror.asked) == 3, "what is there is not downloaded again"


def test_a_cut_download_of_the_checkpoint_goes_on_with_the_file_it_was_at(tmp_path, mirror):
    mirror.cuts = fetch.TRIES
    with pytest.raises(InputError, match=r"/args\.json: download failed after 5 attempts"):
        fetch.fetch("scgpt_human", tmp_path)
    folder = fetch.fetch("scgpt_human", tmp_path)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == mirror.files
    (folder / "best_model.pt").write_bytes(b"damaged")
    mirror.asked.clear()
    mirror.cuts = 0
    fetch.fetch("scgpt_human", tmp_path)
    assert mirror.asked == [None], "only the damaged file comes again"


def test_a_checkpoint_with_another_hash_is_refused(tmp_path, mirror):
    mirror.files["vocab.json"] += b" "
    with pytest.raises(InputError, match=r"/vocab\.json: .*does not match the known hash.*--url"):
        fetch.fetch("scgpt_human", tmp_path)
    with pytest.raises(InputError, match=r"vocab\.json is missing"):
        load_checkpoint(tmp_path / "scgpt_human")


def test_the_official_files_are_those_whose_hash_loading_knows():
    folder = fetch.FOLDERS["scgpt_human"]
    assert KNOWN[folder.files["best_model.pt"]] == "scGPT whole-human"
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in folder.files.values())
