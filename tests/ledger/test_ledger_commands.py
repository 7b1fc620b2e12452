"""`makegood ledger …` as people type it: what is printed, and the exit codes."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.ledger import corpus

from makegood import cli
from makegood.ledger.store import Ledger


class Shell:
    """The command line called in this process: exit code, stdout, stderr."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *words: object) -> tuple[int, str, str]:
        self.monkeypatch.setattr(sys, "argv", ["makegood", *map(str, words)])
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main()
        out, err = self.capsys.readouterr()
        return int(left.value.code or 0), out, err


@pytest.fixture
def makegood(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """Return the command line."""
    monkeypatch.delenv("MAKEGOOD_LEDGER", raising=False)
    return Shell(monkeypatch, capsys)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a workspace whose case `diagnosis` has a service with a ledger."""
    workspace = tmp_path_factory.mktemp("workspace")
    corpus.build(workspace / "diagnosis" / "service", 6)
    return workspace


@pytest.fixture
def workspace(original: Path, tmp_path: Path) -> Path:
    """Return a copy of it."""
    return Path(shutil.copytree(original, tmp_path / "workspace"))


def test_verify_says_what_it_compared(makegood: Shell, workspace: Path) -> None:
    code, out, err = makegood("ledger", "verify", "diagnosis", "--workspace", workspace)
    service = workspace / "diagnosis" / "service"
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("partition 0: 16 events, head ")
    assert lines[2:] == [f"6 anchors, signed by the key of {service / 'anchor.pub'}", "whole"]
    code, out, err = makegood("ledger", "verify", service / "ledger.sqlite", "--json")
    assert (code, json.loads(out)["ok"], json.loads(out)["partitions"]["0"]["events"]) == (0, True, 16)
    assert "whole" in err


def test_verify_finds_and_leaves_with_1_or_2(makegood: Shell, workspace: Path) -> None:
    path = workspace / "diagnosis" / "service" / "ledger.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM makegood_events WHERE partition = 0 AND seq = 8")
    code, out, err = makegood("ledger", "verify", f"sqlite:///{path}")
    assert (code, err) == (1, "")
    assert "error: partition 0, event 9" in out
    assert "expected event 8: 1 are missing" in out
    assert out.endswith("NOT whole\n")
    path.write_bytes(b"no database" * 1000)
    code, out, err = makegood("ledger", "verify", path)
    assert (code, out) == (2, "")
    assert "file is not a database" in err
    code, out, err = makegood("ledger", "verify", "digits", "--workspace", workspace)
    assert code == 2
    assert "expected a ledger's file; makegood serve CASE makes it" in err


def test_verify_takes_keys_and_anchors_from_elsewhere(makegood: Shell, workspace: Path, tmp_path: Path) -> None:
    service = workspace / "diagnosis" / "service"
    key, lines = shutil.move(service / "anchor.pub", tmp_path), shutil.move(service / "anchors.jsonl", tmp_path)
    words = ("ledger", "verify", "diagnosis", "--workspace", workspace, "--public-key", key, "--anchors", lines)
    code, out, _ = makegood(*words)
    assert code == 0
    assert f"6 anchors, signed by the key of {key}" in out
    code, out, _ = makegood(*words[:5])
    assert code == 0
    assert "warning: " in out
    assert "without it nobody can tell whether a partition's end is missing" in out


def test_the_environment_names_another_ledger(makegood: Shell, workspace: Path, tmp_path: Path) -> None:
    path = corpus.build(tmp_path / "elsewhere", 4, archived=False)
    makegood.monkeypatch.setenv("MAKEGOOD_LEDGER", f"sqlite:///{path}")
    code, out, _ = makegood("ledger", "export", "diagnosis", "--workspace", workspace, "--out", tmp_path / "a.parquet")
    assert (code, out.splitlines()) == (0, ["9 decisions", str((tmp_path / "a.parquet").resolve())])
    assert pq.read_table(tmp_path / "a.parquet").num_rows == 9


def test_anchor_signs_once_and_says_what(makegood: Shell, tmp_path: Path) -> None:
    path = corpus.build(tmp_path, 4, anchored=False)
    code, out, _ = makegood("ledger", "anchor", path)
    assert code == 0
    assert out.splitlines()[-1] == str((tmp_path / "anchors.jsonl").resolve())
    assert out.startswith("partition 0: ")
    code, out, _ = makegood("ledger", "anchor", path, "--json")
    assert [a["partition"] for a in json.loads(out)["anchors"]] == [0, 1]
    code, out, _ = makegood("ledger", "verify", path)
    assert (code, "4 anchors" in out) == (0, True)


def test_export_as_json(makegood: Shell, workspace: Path, tmp_path: Path) -> None:
    code, out, _ = makegood("ledger", "export", "diagnosis", "--workspace", workspace, "--out", tmp_path / "new", "--json")
    assert (code, json.loads(out)) == (0, {"decisions": 11, "out": str((tmp_path / "new" / "decisions.parquet").resolve())})


def test_archive_moves_old_events_and_verification_goes_on(makegood: Shell, tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger.open(f"sqlite:///{path}") as ledger:
        day = 86_400_000_000
        ledger.append([corpus.decision(f"d{i}", ledger.pseudonym("ada"), corpus.START + i * day) for i in range(9)])
        code, _, err = makegood("ledger", "archive", path, "--before", "2025-06-18")
        assert code == 2
        assert "writes to it" in err
    code, out, err = makegood("ledger", "archive", path, "--before", "2025-06-18")
    assert (code, err) == (0, "")
    assert out.startswith("partition 0: events 1 to 3 → ")
    code, out, _ = makegood("ledger", "archive", path, "--before", "2025-06-19", "--json")
    (segment,) = json.loads(out)["segments"]
    assert (code, segment["first"], segment["last"]) == (0, 4, 4)
    assert (tmp_path / segment["file"]).is_file()
    assert makegood("ledger", "verify", path)[0] == 0
    assert makegood("ledger", "archive", path, "--before", "yesterday")[0] == 2


def test_erase_destroys_and_counts(makegood: Shell, tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    code, _, err = makegood("ledger", "erase", path, "--decision", "d0", "--by", "Grace")
    assert (code, path.exists()) == (2, False), "a ledger that is not there is not made"
    assert "expected a ledger's file" in err
    with Ledger.open(f"sqlite:///{path}") as ledger:
        ledger.append([corpus.decision(f"d{i}", ledger.pseudonym("ada"), corpus.START + i) for i in range(9)])
    code, out, _ = makegood("ledger", "erase", path, "--decision", "d0", "--decision", "d1", "--by", "Grace", "--why", "asked to")
    assert (code, out) == (0, "2 private parts are gone\n")
    code, out, _ = makegood("ledger", "erase", path, "--unit", "ada", "--by", "Grace", "--json")
    assert (code, json.loads(out)) == (0, {"erased": 7})
    assert b"Ada" not in path.read_bytes()
    assert makegood("ledger", "verify", path)[0] == 0
    code, _, err = makegood("ledger", "erase", path, "--by", "Grace")
    assert code == 2
    assert "neither a unit nor a decision" in err
