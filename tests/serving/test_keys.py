"""Keys: what is kept of them, what they grant, and that changes count at once."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from makegood.errors import CaseError, DataError
from makegood.serving import keys
from makegood.serving.keys import LOCAL, Keyring
from makegood.serving.problems import Trouble


def bearer(token: str) -> bytes:
    return f"Bearer {token}".encode()


def refusal(ring: Keyring, header: bytes | None, scope: str = "decide") -> Trouble:
    with pytest.raises(Trouble) as caught:
        ring.key(header, scope)
    return caught.value


def test_without_a_file_whoever_is_here_may_do_everything(tmp_path: Path) -> None:
    ring = Keyring.open(tmp_path / "keys.json")
    assert len(ring) == 0
    assert [ring.key(None, scope) for scope in keys.SCOPES] == [LOCAL] * 3


def test_a_key_grants_its_scopes_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "service" / "keys.json"
    token = keys.create(path, "shop", ("observe", "decide"), "100/s")
    ring = Keyring.open(path)
    key = ring.key(bearer(token), "decide")
    assert (key.name, key.scopes, key.rate, len(ring)) == ("shop", ("decide", "observe"), 100.0, 1)
    assert ring.key(f"bearer {token}".encode(), "observe") == key  # the scheme's name is in any case (RFC 9110, 11.1)
    refused = refusal(ring, bearer(token), "admin")
    assert (refused.status, refused.detail) == (403, "The key shop has the scope decide, observe; this needs admin")


@pytest.mark.parametrize("header", [None, b"", b"Bearer ", b"Basic YTpi", b"Bearer mg_short", b"Bearer mg_" + b"x" * 44])
def test_what_is_no_key_of_ours_is_told_how_to_send_one(tmp_path: Path, header: bytes | None) -> None:
    keys.create(tmp_path / "keys.json", "shop", ("decide",))
    refused = refusal(Keyring.open(tmp_path / "keys.json"), header)
    assert (refused.status, refused.detail) == (401, "Send a key of this service: Authorization: Bearer mg_…")
    assert refused.headers()["www-authenticate"] == "Bearer"


def test_a_key_that_differs_in_one_letter_is_unknown(tmp_path: Path) -> None:
    token = keys.create(tmp_path / "keys.json", "shop", ("decide",))
    other = token[:-1] + ("A" if token[-1] != "A" else "B")
    refused = refusal(Keyring.open(tmp_path / "keys.json"), bearer(other))
    assert (refused.status, refused.detail) == (401, "This key is not known here")


def test_only_a_hash_is_kept_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "service" / "keys.json"
    tokens = [keys.create(path, f"k{i}", ("decide",)) for i in range(3)]
    assert len(set(tokens)) == 3
    assert all(token.startswith("mg_") and len(token) == 46 for token in tokens)
    kept = path.read_text(encoding="utf-8")
    assert not any(token in kept or token[3:] in kept for token in tokens)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in keys.listed(path)] == ["k0", "k1", "k2"]
    assert os.listdir(path.parent) == ["keys.json"]


def test_keys_made_and_revoked_count_at_once(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    ring = Keyring.open(path)
    assert ring.key(None, "admin") is LOCAL
    token = keys.create(path, "shop", ("decide",))
    assert refusal(ring, None).status == 401  # from the first key on, keys are asked for
    assert ring.key(bearer(token), "decide").name == "shop"
    keys.revoke(path, "shop")
    assert refusal(ring, bearer(token)).detail == "This key is not known here"
    assert refusal(ring, None).status == 401
    path.unlink()
    assert refusal(ring, None).status == 401  # a file that goes away opens nothing


def test_a_file_that_is_damaged_while_the_service_runs_lets_nobody_in(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    token = keys.create(path, "shop", ("decide",))
    ring = Keyring.open(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    refused = refusal(ring, bearer(token))
    assert (refused.status, refused.detail) == (503, "The service's keys cannot be read")
    path.write_bytes(whole)
    assert ring.key(bearer(token), "decide").name == "shop"


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("{", "Input data was truncated"),
        ('{"format": 2, "keys": []}', "format 2"),
        ('{"format": 1, "keys": [{"name": "a", "sha256": "00", "scopes": [], "created": ""}]}', "the key 'a'"),
        ('{"format": 1, "keys": [{"name": "a/b", "sha256": "%s", "scopes": [], "created": ""}]}' % ("0" * 64), "the key 'a/b'"),
        ('{"format": 1, "keys": [{"name": "a", "sha256": "%s", "scopes": ["root"], "created": ""}]}' % ("0" * 64), "the key 'a'"),
        ('{"format": 1, "keys": [{"name": "a", "sha256": "%s", "scopes": [], "created": "", "rate": "x"}]}' % ("0" * 64), "--rate"),
        ('{"format": 1, "keys": [], "more": 1}', "Object contains unknown field `more`"),
    ],
)
def test_a_file_that_is_not_ours_is_refused(tmp_path: Path, text: str, got: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="the keys of a service, as `makegood keys` writes them") as caught:
        Keyring.open(path)
    assert got in caught.value.problems[0].got


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "keys.json").mkdir()
    with pytest.raises(DataError, match="Is a directory"):
        Keyring.open(tmp_path / "keys.json")
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="Not a directory"):
        Keyring.open(tmp_path / "file" / "keys.json")


@pytest.mark.parametrize(
    ("name", "scopes", "rate", "said"),
    [
        ("a b", ("decide",), "", r"--name: got 'a b'; expected 1 to 64 of A-Z a-z 0-9 \. _ -; say who uses the key"),
        ("", ("decide",), "", "say who uses the key"),
        ("a", ("decied",), "", "--scope: got 'decied'; expected some of decide, observe, admin; did you mean 'decide'"),
        ("a", (), "", "such as --scope decide,observe"),
        ("a", ("decide",), "100", "--rate: got '100'; expected rows in a time, such as 100/s, 6000/min or 500000/h"),
        ("a", ("decide",), "0/s", "leave it out for no bound"),
    ],
)
def test_a_key_that_makes_no_sense_is_not_made(tmp_path: Path, name: str, scopes: tuple[str, ...], rate: str, said: str) -> None:
    with pytest.raises(CaseError, match=said):
        keys.create(tmp_path / "keys.json", name, scopes, rate)
    assert list(tmp_path.iterdir()) == []


def test_names_are_used_once_and_must_be_known_to_be_revoked(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    with pytest.raises(CaseError, match="NAME: got 'shop'; expected one of no keys at all"):
        keys.revoke(path, "shop")
    keys.create(path, "shop", ("decide",))
    with pytest.raises(CaseError, match="expected a name that no key has; revoke that key first, or take another name"):
        keys.create(path, "shop", ("admin",))
    with pytest.raises(CaseError, match="expected one of shop; did you mean 'shop'"):
        keys.revoke(path, "shpo")
    assert [entry.scopes for entry in keys.listed(path)] == [("decide",)]


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(CaseError, match="expected a folder that can be written to; give another with --workspace"):
        keys.create(tmp_path / "file" / "keys.json", "a", ("decide",))
