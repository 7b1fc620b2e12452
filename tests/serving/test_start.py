"""The start of a service: what it says, how soon it decides, and what it refuses to begin with."""

from __future__ import annotations

import resource
import signal
import socket
import stat
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.bundles import ROW
from tests.pace import allowed
from tests.serving import lives
from tests.serving.processes import command, refused, serving, workspace

from makegood.errors import CaseError, MissingExtra
from makegood.serving import keys, start
from makegood.serving.locate import locate


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with loans, in which no service ever ran."""
    return workspace(tmp_path_factory.mktemp("made"), lives.champion())


@pytest.fixture
def space(tmp_path: Path) -> Path:
    """A workspace of the test's own."""
    return workspace(tmp_path / "space", lives.champion())


def decided(answer: Any) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


# ------------------------------------------------------------------------------------------------------------------ start


def test_a_service_says_what_it_is_and_decides(space: Path) -> None:
    with serving(space) as at:
        assert at.said["url"].startswith("http://127.0.0.1:")
        assert at.said["model"] == lives.champion().name
        assert at.said["ledger"] == f"sqlite:///{space.resolve()}/loans/service/ledger.sqlite"
        assert (at.said["pid"], at.said["workers"]) == (at.process.pid, 1)
        answer = at.ask("POST", "/v1/decisions", json=ROW, headers={"Idempotency-Key": "first"})
        assert decided(answer)["model"] == lives.champion().name
        assert "server" not in answer.headers
        assert stat.S_IMODE((space / "loans" / "service").stat().st_mode) == 0o700
        assert at.stop() == 0
    with serving(space) as at:  # what it decided outlives it
        again = at.ask("POST", "/v1/decisions", json=ROW, headers={"Idempotency-Key": "first"})
        assert again.headers["idempotent-replay"] == "true"
        assert decided(again) == decided(answer)
        assert at.stop(signal.SIGINT) == 0


def test_the_first_decision_comes_within_two_seconds_of_the_start(space: Path) -> None:
    """In one of three tries: what else a machine does for a while, its pace after that does not tell."""
    found = []
    for _ in range(3):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        with serving(space, env={"COVERAGE_PROCESS_CONFIG": None}) as at:  # to be measured twice at once takes twice as long
            decided(at.ask("POST", "/v1/decisions", json=ROW))
            took = time.perf_counter() - began
            assert at.stop() == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        computed = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        found.append(min(took, computed) / allowed(1.0))  # where other work takes the cores, waiting for one is not the service's
        if found[-1] <= 2.0:
            break
    assert min(found) <= 2.0, found


def test_a_bundle_is_served_by_its_folder(space: Path) -> None:
    with serving(space, case=space / "loans" / "20260101-000000-0000" / "bundle") as at:
        assert at.said["model"] == lives.champion().name


def test_the_line_for_people_says_the_same(space: Path) -> None:
    process = subprocess.Popen(
        command("serve", "loans", "--port", "0", "--workspace", space), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    process.terminate()
    rest, _ = process.communicate(timeout=60)
    model, url = lives.champion().name, r"http://127.0.0.1:"
    assert line.startswith(f"{model} decides at {url}")
    assert line.endswith(f"ledger: sqlite:///{space.resolve()}/loans/service/ledger.sqlite  pid: {process.pid}\n")
    assert (rest, process.returncode) == ("", 0)


# --------------------------------------------------------------------------------------------------------------- refusals


def test_what_cannot_be_served_is_told_with_what_to_do(made: Path, tmp_path: Path) -> None:
    assert refused("serve", "diagnosis", "--workspace", tmp_path) == (
        2,
        f"error: workspace {tmp_path}: got 'diagnosis'; expected a case that was run; makegood run diagnosis\n",
    )
    code, said = refused("serve", "laons", "--workspace", made)
    assert (code, "did you mean 'loans'?" in said) == (2, True)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.json").write_text("{}", encoding="utf-8")
    code, said = refused("serve", tmp_path / "broken", "--workspace", tmp_path)
    assert (code, "format None" in said) == (2, True)


def test_several_workers_need_a_ledger_that_several_can_write(made: Path) -> None:
    code, said = refused("serve", "loans", "--workers", "2", "--workspace", made, env={"MAKEGOOD_LEDGER": ""})
    assert (code, said) == (
        2,
        "error: --workers: got '2 and a SQLite ledger'; expected 1, since one process alone writes a SQLite ledger; "
        "name a PostgreSQL ledger in MAKEGOOD_LEDGER, or leave --workers out\n",
    )


def test_others_than_this_machine_need_keys(space: Path) -> None:
    code, said = refused("serve", "loans", "--host", "0.0.0.0", "--port", "0", "--workspace", space)
    assert (code, said) == (
        2,
        "error: --host: got '0.0.0.0'; expected keys, since others than this machine can reach that address; "
        "make one with `makegood keys create`, or listen on 127.0.0.1; TLS is for the balancer in front\n",
    )
    file = locate("loans", space).service / keys.FILE
    token = keys.create(file, "shop", ("decide",))
    with serving(space, "--host", "0.0.0.0") as at:
        url = at.url.replace("0.0.0.0", "127.0.0.1")
        at.said["url"] = url
        assert at.ask("POST", "/v1/decisions", json=ROW).status_code == 401
        decided(at.ask("POST", "/v1/decisions", json=ROW, headers={"Authorization": f"Bearer {token}"}))
        keys.revoke(file, "shop")
        assert at.ask("POST", "/v1/decisions", json=ROW, headers={"Authorization": f"Bearer {token}"}).status_code == 401
    assert refused("serve", "loans", "--host", "::", "--port", "0", "--workspace", space)[0] == 2  # its last key is gone


def test_an_address_that_is_not_to_be_had_is_told(made: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said = refused("serve", "loans", "--port", port, "--workspace", made)
        assert (code, said) == (2, f"error: --port: got '{port}'; expected a free port; stop what listens there, or give another\n")
    code, said = refused("serve", "loans", "--host", "no.such.host.invalid", "--workspace", made)
    assert (code, said.startswith("error: --host: got 'no.such.host.invalid'; expected an address of this machine; ")) == (2, True)
    keys_needed = refused("serve", "loans", "--host", "192.0.2.1", "--workspace", made)
    assert keys_needed[0] == 2


def test_a_workspace_that_cannot_be_written_is_told(made: Path, tmp_path: Path) -> None:
    space = workspace(tmp_path / "space", lives.champion())
    (space / "loans" / "service").write_text("", encoding="utf-8")
    code, said = refused("serve", "loans", "--port", "0", "--workspace", space)
    assert (code, said) == (
        2,
        f"error: --workspace: got '{space}/loans/service: File exists'; expected a folder that can be written to; give another with --workspace\n",
    )


def test_a_ledger_has_one_service(space: Path) -> None:
    with serving(space) as at:
        code, said = refused("serve", "loans", "--port", "0", "--workspace", space)
        assert (code, str(at.process.pid) in said) == (2, True), said
        assert at.ask("GET", "/healthz").status_code == 200


def test_a_model_that_was_refused_is_served_only_by_force(tmp_path: Path) -> None:
    live = lives.live(replace(lives.champion().model, verdict="refuse"), "refused")
    space = workspace(tmp_path / "space", live)
    code, said = refused("serve", "loans", "--port", "0", "--workspace", space)
    assert code == 1, said
    assert "refuse" in said
    assert "--force" in said
    with serving(space, "--force") as at:
        assert decided(at.ask("POST", "/v1/decisions", json=ROW))["model"] == live.name


def test_what_serves_over_http_is_an_extra() -> None:
    start.check_installed(("starlette",))
    with pytest.raises(MissingExtra, match=r"makegood serve: got 'no makegood_absent'; .*pip install 'makegood\[serve\]'"):
        start.check_installed(("starlette", "makegood_absent"))


def test_an_address_of_another_machine_is_none_of_ours() -> None:
    with pytest.raises(CaseError, match=r"--host: got '192.0.2.1'; expected an address of this machine"):
        start.bound("192.0.2.1", 0, safe=True)


def test_an_address_of_either_kind_has_a_url() -> None:
    for host, url in (("127.0.0.1", "http://127.0.0.1:"), ("localhost", "http://")):
        with start.bound(host, 0, safe=False) as sock:
            assert start.url_of(sock).startswith(url)
    if socket.has_ipv6:
        with socket.socket(socket.AF_INET6) as sock:
            try:
                sock.bind(("::1", 0))
            except OSError:
                pytest.skip("no IPv6 on this machine")
            assert start.url_of(sock).startswith("http://[::1]:")
