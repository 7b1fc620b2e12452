"""Files behind addresses, from a real server on this machine."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from makegood import cases
from makegood.data import downloads, sources
from makegood.data.downloads import fetched, verified
from makegood.errors import CaseError, DataError

CSV = b"x,y\n" + b"".join(b"%d,%d\n" % (i, i % 2) for i in range(60))
SHA = hashlib.sha256(CSV).hexdigest()


@dataclass
class Site:
    """What the server answers by path: (status, headers, body); and what it was asked."""

    port: int = 0
    answers: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def at(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


@pytest.fixture
def site() -> Iterator[Site]:
    held = Site()

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            held.asked.append(self.path)
            status, headers, body = held.answers.get(self.path, (404, {}, b"nothing here"))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        held.port = server.server_address[1]
        held.answers["/t.csv"] = (200, {"Content-Length": str(len(CSV))}, CSV)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield held
        server.shutdown()
        thread.join()


def left(cache: Path) -> list[str]:
    return sorted(p.relative_to(cache).as_posix() for p in cache.rglob("*") if p.is_file())


def test_a_file_is_fetched_once_and_verified_at_each_use(site: Site, tmp_path: Path) -> None:
    file = fetched(site.at("/t.csv"), SHA, tmp_path)
    assert file == tmp_path / SHA / "t.csv"
    assert file.read_bytes() == CSV
    assert fetched(site.at("/t.csv"), SHA, tmp_path) == file
    assert site.asked == ["/t.csv"]
    file.write_bytes(CSV[:-1])  # the cache is damaged: it is not believed
    assert fetched(site.at("/t.csv"), SHA, tmp_path).read_bytes() == CSV
    assert site.asked == ["/t.csv", "/t.csv"]
    assert left(tmp_path) == [f"{SHA}/t.csv"]


def test_a_source_may_be_an_address(site: Site, tmp_path: Path) -> None:
    site.answers["/t.csv?version=1"] = site.answers["/t.csv"]
    source = sources.read(site.at("/t.csv?version=1"), sha256=SHA, cache=tmp_path)
    assert (source.name, source.table.num_rows, source.table.column_names) == ("t.csv", 60, ["x", "y"])
    assert source.fingerprint == sources.read(tmp_path / SHA / "t.csv").fingerprint


def test_another_file_than_the_declared_one_is_never_used(site: Site, tmp_path: Path) -> None:
    other = "0" * 64
    with pytest.raises(DataError, match=rf"^data\.sha256: got '{SHA} of http://127.*/t\.csv'; expected {other}; it was damaged on its way"):
        fetched(site.at("/t.csv"), other, tmp_path)
    assert left(tmp_path) == []


def test_without_a_hash_nothing_is_asked(site: Site, tmp_path: Path) -> None:
    with pytest.raises(
        CaseError,
        match=r"^data\.sha256: got 'nothing'; expected the SHA-256 of the file, as its publisher states it.*`sha256sum FILE` prints$",
    ):
        fetched(site.at("/t.csv"), None, tmp_path)
    assert site.asked == []


def test_a_file_that_ends_early(site: Site, tmp_path: Path) -> None:
    site.answers["/t.csv"] = (200, {"Content-Length": str(len(CSV))}, CSV[:100])
    with pytest.raises(
        DataError,
        match=rf"^data\.source: got '100 of {len(CSV)} bytes from http://.*; expected the whole file; try again, or fetch the file by hand",
    ):
        fetched(site.at("/t.csv"), SHA, tmp_path)
    assert left(tmp_path) == []


def test_an_address_without_a_file(site: Site, tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"^data\.source: got 'http://127.*/other\.csv: 404 Not Found'; expected the file behind this address; look at the address and the network, or fetch the file by hand and write data\.source: PATH",
    ):
        fetched(site.at("/other.csv"), SHA, tmp_path)


@pytest.mark.parametrize("declared", [True, False])
def test_a_file_that_is_too_large_is_not_kept(site: Site, tmp_path: Path, declared: bool) -> None:
    site.answers["/t.csv"] = (200, {"Content-Length": str(len(CSV))} if declared else {}, CSV)
    with pytest.raises(DataError, match=r"^data\.source: got 'more than 100 bytes behind http://.*; expected at most 100;"):
        fetched(site.at("/t.csv"), SHA, tmp_path, most=100)
    assert left(tmp_path) == []
    assert fetched(site.at("/t.csv"), SHA, tmp_path, most=len(CSV)).read_bytes() == CSV


def test_a_redirection_is_followed_here_and_nowhere_else(site: Site, tmp_path: Path) -> None:
    site.answers["/moved.csv"] = (302, {"Location": "/t.csv"}, b"")
    assert fetched(site.at("/moved.csv"), SHA, tmp_path / "a").read_bytes() == CSV
    secret = tmp_path / "secret.csv"
    secret.write_bytes(CSV)
    for target in (secret.as_uri(), f"ftp://127.0.0.1:{site.port}/t.csv", "http://192.0.2.1/t.csv"):
        site.answers["/moved.csv"] = (302, {"Location": target}, b"")
        with pytest.raises(
            DataError, match=rf"^data\.source: got ['\"]http://127.*: (it leads on to {target}, which is no https address|.*not allowed)"
        ):
            fetched(site.at("/moved.csv"), SHA, tmp_path / "b")
    assert left(tmp_path / "b") == []


def test_https_never_leads_back_to_http(site: Site) -> None:
    import urllib.error
    import urllib.request

    request = urllib.request.Request("https://example.org/t.csv")
    with pytest.raises(urllib.error.URLError, match=r"it leads from https to http://127\.0\.0\.1/t\.csv"):
        downloads._SameWay().redirect_request(request, None, 302, "Found", {}, "http://127.0.0.1/t.csv")


def test_where_nobody_answers(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and not listening
        with pytest.raises(DataError, match=r"^data\.source: got 'http://127.*/t\.csv: .*refused'; expected the file behind this address"):
            fetched(f"http://127.0.0.1:{taken.getsockname()[1]}/t.csv", SHA, tmp_path)


def test_an_answer_that_is_no_http(tmp_path: Path) -> None:
    def answer() -> None:
        with listening.accept()[0] as client:
            client.recv(1000)
            client.sendall(b"SSH-2.0-dropbear\r\n")

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(DataError, match=r"^data\.source: got 'http://127.*/t\.csv: SSH-2\.0-dropbear"):
            fetched(f"http://127.0.0.1:{listening.getsockname()[1]}/t.csv", SHA, tmp_path)
        thread.join()


@pytest.mark.parametrize(
    "address",
    [
        "http://example.org/t.csv",
        "file:///etc/passwd",
        "ftp://example.org/t.csv",
        "https://",
        "https://[::1/t.csv",
        "http://127.0.0.1.example.org/t",
    ],
)
def test_other_addresses_are_refused(address: str, tmp_path: Path) -> None:
    with pytest.raises(CaseError, match=r"^data\.source: got '.*'; expected an https address; or fetch the file by hand"):
        sources.read(address, sha256=SHA, cache=tmp_path)


def test_a_password_is_neither_sent_nor_shown(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match=r"an address with a name or password on example\.org") as caught:
        fetched("https://me:secret@example.org/t.csv", SHA, tmp_path)
    assert "secret" not in str(caught.value)


def test_a_cache_that_is_a_file(site: Site, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(CaseError, match=r"^the cache: got '.*'; expected a folder that can be written to; name another in MAKEGOOD_CACHE"):
        fetched(site.at("/t.csv"), SHA, tmp_path / "cache")


def test_a_local_file_is_held_to_its_hash_too(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(CSV)
    assert verified(path, SHA, "t.csv") == path
    assert sources.read(path, sha256=SHA).table.num_rows == 60
    path.write_bytes(CSV + b"9,1\n")
    with pytest.raises(DataError, match=rf"^data\.sha256: got '[0-9a-f]{{64}} of t\.csv'; expected {SHA};"):
        sources.read(path, sha256=SHA)


def test_what_has_no_hash_takes_none(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="none for a built-in table"):
        sources.read("builtin:diagnosis", sha256=SHA)
    with pytest.raises(CaseError, match="a file; a folder has none"):
        sources.read(tmp_path, sha256=SHA)


def test_a_published_table_is_made_of_its_parts(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {"train": (site.at("/t.csv"), SHA), "test": (site.at("/t.csv"), SHA)}
    monkeypatch.setitem(cases.TABLES, "rows", cases.Published(parts, "part", "here"))
    found = sources.read("builtin:rows", cache=tmp_path)
    assert (found.in_file, found.set_aside, found.name) == (120, 0, "builtin:rows")
    assert found.table["part"].to_pylist() == ["train"] * 60 + ["test"] * 60
    assert sources.read("builtin:rows", cache=tmp_path).fingerprint == found.fingerprint
    monkeypatch.setitem(cases.TABLES, "rows", cases.Published({"train": (site.at("/t.csv"), "0" * 64)}, "part", "here"))
    with pytest.raises(DataError, match=rf"^data\.sha256: got '{SHA} of "):
        sources.read("builtin:rows", cache=tmp_path)


def test_images_by_path_need_a_table_that_lies_beside_them(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match=r"^data\.path: got 'file'; expected a table that lies beside its images"):
        sources.read("https://example.org/t.csv", path="file", sha256=SHA)
