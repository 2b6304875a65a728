"""Downloads from a server on this machine: whole, cut, wrong, refused; nothing here needs a network."""

import hashlib
import io
import re
import threading
import zipfile
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata.io import write_elem

from reverse_perturbation.errors import InputError
from reverse_perturbation.prepare import fetch
from reverse_perturbation.prepare.h5ad import read_source

ROOT = Path(__file__).parents[2]
DEVEL = ROOT.parent / "shared" / "data" / "perturbench_devel.h5ad"
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
        if self.web.ranges and (asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))):
            start = int(asked[1])
            if start >= len(self.web.content):
                self.send_error(416)
                return
        body = self.web.content[start:]
        self.send_response(206 if start else 200)
        if start:
            last = len(self.web.content) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(self.web.content)}")
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
        known = hashlib.sha256(content).hexdigest() if name == NAME else None
        source = replace(fetch.SOURCES[name], url=servers[-1].url, sha256=known)
        monkeypatch.setitem(fetch.SOURCES, name, source)
        return servers[-1]

    yield start
    for server in servers:
        server.http.shutdown()
        server.http.server_close()


@pytest.fixture(scope="module")
def devel(tmp_path_factory) -> bytes:
    """A file as PerturBench's: two cells of Norman's, one of another data set, 100 UMIs each."""
    logs = sp.csr_matrix(np.log1p(np.array([[1.0, 0, 2], [3, 0, 0], [0, 4, 1]]) * 100))
    obs = pd.DataFrame(
        {"dataset": ["norman19", "other", "norman19"], "condition": ["A", "B", "control"], "ncounts": 100.0},
        index=["AA-1", "AC-1", "AG-2"],
    )
    path = tmp_path_factory.mktemp("devel") / "devel.h5ad"
    ad.AnnData(X=logs, obs=obs, var=pd.DataFrame(index=["A", "B", "C"])).write_h5ad(path)
    return path.read_bytes()


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
    with pytest.raises(SystemExit) as stopped:
        fetch.main([NAME, "--folder", str(tmp_path)])
    assert re.match(r"error: http://127\.0\.0\.1:\d+/file: download failed after 5 attempts", str(stopped.value))
    assert "\n" not in str(stopped.value)


def test_the_command_takes_a_mirror_and_says_what_to_do_next(tmp_path, serve, devel, capsys):
    server = serve(devel)
    fetch.main([NAME, "--folder", str(tmp_path), "--url", server.url])
    said = capsys.readouterr().out
    assert hashlib.sha256(devel).hexdigest() in said
    assert f"-S data.path={tmp_path / 'norman_subset.h5ad'}" in said


def archive(tmp_path: Path, genes: int = fetch.GENES, member: str = "norman/perturb_processed.h5ad") -> bytes:
    """An archive laid out as GEARS's, its cells without counts."""
    table = pd.read_csv(fetch.CONDITIONS)
    labels = table["condition"].repeat(table["cells"]).to_numpy()
    obs = pd.DataFrame({"condition": pd.Categorical(labels)}, index=np.arange(len(labels)).astype(str))
    file = tmp_path / "perturb_processed.h5ad"
    with h5py.File(file, "w") as content:
        write_elem(content, "obs", obs)
        write_elem(content, "var", pd.DataFrame({"gene_name": np.arange(genes).astype(str)}))
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as folder:
        folder.writestr("norman/go.csv", "")
        folder.write(file, member)
    return zipped.getvalue()


def test_the_full_file_is_unzipped_checked_and_its_hash_kept(tmp_path, serve):
    content = archive(tmp_path)
    server = serve(content, "norman")
    folder = tmp_path / "raw"
    result = fetch.fetch("norman", folder)
    with h5py.File(result) as file:
        assert len(file["obs"]["condition"]["codes"]) == 91205
    assert sorted(path.name for path in folder.iterdir()) == ["norman.h5ad", "norman.zip", "norman.zip.sha256"]
    assert (folder / "norman.zip.sha256").read_text() == hashlib.sha256(content).hexdigest() + "\n"
    (folder / "norman.zip").unlink()
    server.content = content[:-1] + b"?"
    with pytest.raises(InputError, match="does not match the known hash"):
        fetch.fetch("norman", folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda folder: b"<html>prove that you are no program</html>", "File is not a zip file"),
        (lambda folder: archive(folder, genes=7), r"91,205 cells of 284 labels x 7 genes, expected .* x 5,045"),
        (lambda folder: archive(folder, member="norman/other.h5ad"), "not GEARS's archive"),
        (lambda folder: archive(folder)[:-4000], "File is not a zip file"),
    ],
)
def test_what_is_not_the_full_file_is_refused(tmp_path, serve, content, message):
    serve(content(tmp_path), "norman")
    folder = tmp_path / "raw"
    with pytest.raises(InputError, match=message):
        fetch.fetch("norman", folder)
    assert [path.name for path in folder.iterdir()] == ["norman.zip"]


def test_the_subset_is_the_one_the_results_are_of(tmp_path, serve, norman_subset):
    """Counts, labels, order: what the public file gives is the file of the report on real cells."""
    if not DEVEL.exists():
        pytest.skip("perturbench_devel.h5ad is not beside the checkout")
    known = fetch.SOURCES[NAME].sha256
    serve(DEVEL.read_bytes())
    assert fetch.SOURCES[NAME].sha256 == known
    found, expected = ad.read_h5ad(fetch.fetch(NAME, tmp_path)), ad.read_h5ad(norman_subset)
    assert (found.layers["counts"] != expected.layers["counts"]).nnz == 0
    assert (found.X != expected.X).nnz == 0
    pd.testing.assert_frame_equal(found.obs.astype(str), expected.obs.astype(str))
    assert list(found.var["gene_name"]) == list(expected.var["gene_name"])
