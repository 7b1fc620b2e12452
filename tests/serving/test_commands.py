"""The commands that make, list and revoke keys."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from tests.serving.processes import command, refused

from makegood.serving.keys import FILE, Keyring
from makegood.serving.problems import Trouble


def run(*words: object) -> tuple[str, str]:
    done = subprocess.run(command(*words), capture_output=True, text=True, encoding="utf-8", timeout=60, check=True)
    return done.stdout, done.stderr


def test_a_key_is_shown_once_listed_without_its_secret_and_revoked(tmp_path: Path) -> None:
    at = ("--workspace", tmp_path)
    assert run("keys", "list", "diagnosis", *at)[0] == (
        "no keys; `makegood keys create diagnosis --name NAME --scope decide,observe` makes one\n"
    )
    out, err = run("keys", "create", "diagnosis", "--name", "shop", "--scope", "observe, decide", "--rate", "100/s", *at)
    token = out.strip()
    assert (len(token), err) == (46, "keep it well: it is shown this once\n")
    made = json.loads(run("keys", "create", "diagnosis", "--name", "boss", "--scope", "admin", *at, "--json")[0])
    assert (made["name"], made["scopes"], made["rate"], made["key"][:3]) == ("boss", ["admin"], "", "mg_")

    file = tmp_path / "diagnosis" / "service" / FILE
    ring = Keyring.open(file)
    assert (ring.key(f"Bearer {token}".encode(), "decide").rate, ring.key(f"Bearer {made['key']}".encode(), "admin").name) == (100, "boss")

    listed = json.loads(run("keys", "list", "diagnosis", *at, "--json")[0])["keys"]
    assert [(key["name"], key["scopes"], key["rate"]) for key in listed] == [
        ("shop", ["decide", "observe"], "100/s"),
        ("boss", ["admin"], ""),
    ]
    shown = run("keys", "list", "diagnosis", *at)[0].splitlines()
    assert shown[0].startswith("shop  decide,observe  100/s  made 20")
    assert shown[1].startswith("boss  admin  no bound  made 20")

    assert run("keys", "revoke", "diagnosis", "shop", *at)[0] == "shop is revoked\n"
    assert json.loads(run("keys", "revoke", "diagnosis", "boss", *at, "--json")[0]) == {"revoked": "boss"}
    with pytest.raises(Trouble, match="This key is not known here"):
        ring.key(f"Bearer {token}".encode(), "decide")


def test_what_is_wrong_with_a_key_is_told(tmp_path: Path) -> None:
    code, said = refused("keys", "create", "diagnosis", "--name", "a", "--scope", "decied", "--workspace", tmp_path)
    assert (code, said) == (2, "error: --scope: got 'decied'; expected some of decide, observe, admin; did you mean 'decide'?\n")
    code, said = refused("keys", "revoke", "diagnosis", "a", "--workspace", tmp_path)
    assert (code, said) == (2, "error: NAME: got 'a'; expected one of no keys at all\n")
