"""Anchors: signed, appended, durable, and each forgery of one is seen."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.ledger import corpus

from makegood.errors import LedgerError
from makegood.ledger import anchors
from makegood.ledger.anchors import Anchor, Anchors, Head
from makegood.ledger.verify import verify

HEADS = {0: Head(3, b"\x01" * 32), 7: Head(1, b"\x02" * 32)}


def read(folder: Path) -> list[Anchor]:
    """Return the anchors of a folder, which must all be whole."""
    found = [anchor for _, anchor, whole in anchors.lines(folder / anchors.LINES) if anchor and whole]
    assert len(found) == len((folder / anchors.LINES).read_bytes().splitlines())
    return found


def test_heads_are_signed_once_each(tmp_path: Path) -> None:
    signer = Anchors(tmp_path)
    made = signer.write("ab", HEADS)
    assert [(a.ledger, a.partition, a.seq, a.hash) for a in made] == [("ab", 0, 3, "01" * 32), ("ab", 7, 1, "02" * 32)]
    assert signer.write("ab", HEADS) == ()
    later = signer.write("ab", {**HEADS, 7: Head(2, b"\x03" * 32)})
    assert [(a.partition, a.seq) for a in later] == [(7, 2)]
    assert read(tmp_path) == [*made, *later]
    key = anchors.public_key(tmp_path / anchors.PUBLIC)
    assert all(a.is_signed_by(key) for a in read(tmp_path))


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    first, second = Anchors(tmp_path), Anchors(tmp_path)
    assert first.public == second.public == (tmp_path / anchors.PUBLIC).read_text().strip()
    assert stat.S_IMODE((tmp_path / anchors.KEY).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    "change", [{"ledger": "ac"}, {"partition": 1}, {"seq": 4}, {"hash": "00" * 32}, {"at": 5}, {"signature": "00"}, {"signature": "é"}]
)
def test_no_word_of_an_anchor_can_be_changed(tmp_path: Path, change: dict[str, object]) -> None:
    signer = Anchors(tmp_path)
    anchor = signer.write("ab", HEADS)[0]
    key = anchors.public_key(tmp_path / anchors.PUBLIC)
    assert anchor.is_signed_by(key)
    assert not msgspec.structs.replace(anchor, **change).is_signed_by(key)


def test_what_a_crash_left_of_a_line_is_taken_away(tmp_path: Path) -> None:
    made = Anchors(tmp_path).write("ab", HEADS)
    with (tmp_path / anchors.LINES).open("ab") as file:
        file.write(b'{"ledger":"ab","parti')
    assert [(anchor, whole) for _, anchor, whole in anchors.lines(tmp_path / anchors.LINES)][2] == (None, False)
    after = Anchors(tmp_path).write("ab", {9: Head(1, b"\x04" * 32)})
    assert read(tmp_path) == [*made, *after]


def test_processes_may_write_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from makegood.ledger.anchors import Anchors, Head\n"
        "signer = Anchors(Path(sys.argv[1]))\n"
        "for seq in range(1, 41): signer.write('ab', {int(sys.argv[2]): Head(seq, bytes(32))})\n"
    )
    started = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(n)]) for n in range(3)]
    assert [process.wait() for process in started] == [0, 0, 0]
    key = anchors.public_key(tmp_path / anchors.PUBLIC)
    assert sorted((a.partition, a.seq) for a in read(tmp_path) if a.is_signed_by(key)) == [(p, s) for p in range(3) for s in range(1, 41)]


def test_a_folder_is_one_ledgers(tmp_path: Path) -> None:
    Anchors(tmp_path).write("ab", HEADS)
    with pytest.raises(
        LedgerError, match=r"got 'anchors of ledger ab'; expected those of ledger cd; keep each ledger in a folder of its own"
    ):
        Anchors(tmp_path).write("cd", HEADS)


def test_what_cannot_be_written_or_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError, match=r"anchor\.key: got 'Not a directory'; expected a folder to keep the anchors' key in"):
        Anchors(tmp_path / "file")
    signer = Anchors(tmp_path)
    (tmp_path / anchors.LINES).mkdir()
    with pytest.raises(LedgerError, match=r"anchors\.jsonl: got 'Is a directory'; expected a file of anchors"):
        signer.write("ab", HEADS)
    (tmp_path / anchors.LINES).rmdir()
    (tmp_path / anchors.LINES).symlink_to(tmp_path / "no" / "where")
    with pytest.raises(LedgerError, match=r"anchors\.jsonl: got 'No such file or directory'; expected a file to append anchors to"):
        signer.write("ab", HEADS)
    with pytest.raises(LedgerError, match=r"none: got 'No such file or directory'; expected an Ed25519 public key, 64 hexadecimal digits"):
        anchors.public_key(tmp_path / "none")
    with pytest.raises(LedgerError, match=r"file: got 'no such key'"):
        anchors.public_key(tmp_path / "file")


@pytest.mark.parametrize(("data", "got"), [(b"nonsense", "not a key"), (None, "another kind of key")])
def test_a_damaged_key_is_said(tmp_path: Path, data: bytes | None, got: str) -> None:
    other = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / anchors.KEY).write_bytes(data or other)
    with pytest.raises(
        LedgerError, match=rf"anchor\.key: got '{got}'; expected the Ed25519 key that signs anchors; restore it from a copy"
    ):
        Anchors(tmp_path)


def test_an_unreadable_key_is_said(tmp_path: Path) -> None:
    (tmp_path / anchors.KEY).mkdir()
    with pytest.raises(LedgerError, match=r"anchor\.key: got 'Is a directory'"):
        Anchors(tmp_path)


def test_verification_sees_forged_lines(tmp_path: Path) -> None:
    path = corpus.build(tmp_path, 4)
    lines = tmp_path / anchors.LINES
    whole = lines.read_text()
    other = Ed25519PrivateKey.generate()
    last = msgspec.json.decode(whole.splitlines()[-1], type=Anchor)
    forged = msgspec.structs.replace(last, signature=other.sign(last.said()).hex())
    elsewhere = msgspec.structs.replace(last, ledger="00")
    mine = anchors._key(tmp_path / anchors.KEY)
    elsewhere = msgspec.structs.replace(elsewhere, signature=mine.sign(elsewhere.said()).hex())
    wanted = {
        msgspec.json.encode(forged).decode()
        + "\n": "line 7: got 'a signature by another key, or of something else'; expected one by the ledger's key",
        msgspec.json.encode(elsewhere).decode() + "\n": f"line 7: got 'an anchor of ledger 00'; expected one of {corpus.LEDGER}",
        "hello\n": "line 7: got 'no anchor'; expected one",
    }
    for line, expected in wanted.items():
        lines.write_text(whole + line)
        found = verify(str(path))
        assert not found.ok
        assert expected in str(found.findings[0])
    lines.write_text(whole + json.dumps({"ledger": "x"})[:5])  # a crash while it was written
    found = verify(str(path))
    assert found.ok
    assert found.findings[0].severity == "warning"


def test_a_ledger_is_anchored_as_it_is(tmp_path: Path) -> None:
    path = corpus.build(tmp_path / "a", 4, anchored=False)
    made = anchors.anchor(str(path), tmp_path)
    assert {a.partition: (a.seq, a.hash) for a in made} == {p: (h.seq, h.hash.hex()) for p, h in verify(str(path)).partitions.items()}
    shutil.copy(tmp_path / anchors.LINES, path.parent)
    shutil.copy(tmp_path / anchors.PUBLIC, path.parent)
    assert verify(str(path)).anchored == 2


def test_of_two_that_write_a_new_file_the_first_one_stays(tmp_path: Path) -> None:
    anchors._write_new(tmp_path / "key", b"first", 0o600)
    anchors._write_new(tmp_path / "key", b"second", 0o600)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"first"]
