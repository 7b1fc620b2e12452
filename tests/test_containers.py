"""The image file and the compose file: read as an engine reads them, every path there, nothing that should not be."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "containers"
KNOWN = "FROM WORKDIR COPY RUN ENV USER EXPOSE STOPSIGNAL HEALTHCHECK ENTRYPOINT CMD".split()


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the image file, and what each says, continued lines joined."""
    lines = [
        line for line in (FOLDER / "Containerfile").read_text(encoding="utf-8").splitlines() if line.strip() and not line.startswith("#")
    ]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined)]


def test_the_image_file_holds_instructions_that_there_are() -> None:
    found = instructions()
    assert {word for word, _ in found} == set(KNOWN)
    for word, rest in found:
        if word in ("ENTRYPOINT", "CMD"):
            assert all(isinstance(part, str) for part in json.loads(rest))
    assert dict(found)["STOPSIGNAL"] == "SIGTERM"
    check = re.fullmatch(r"(--\w[\w-]*=\S+ )+CMD (\[.*\])", dict(found)["HEALTHCHECK"])
    assert check
    compile(json.loads(check[2])[2], "the health check", "exec")


def test_what_is_copied_and_installed_is_there() -> None:
    for word, rest in instructions():
        if word == "COPY" and not rest.startswith("--from=build "):
            assert [name for name in rest.split()[:-1] if not (ROOT / name).exists()] == []
        if word == "RUN" and "install" in rest and "/wheels/" not in rest:
            assert "--require-hashes" in rest, rest
            assert (ROOT / rest.split(" -r ")[1].split()[0]).exists()


def test_the_last_stage_runs_as_nobody_in_particular_and_has_no_torch() -> None:
    found = instructions()
    last = max(i for i, (word, _) in enumerate(found) if word == "FROM")
    assert [rest for word, rest in found[last:] if word == "USER"] == ["10001:10001"]
    assert [rest for word, rest in found if word == "FROM" and "/" in rest] == []  # by name alone: the engine knows where
    assert "torch" not in (ROOT / "requirements" / "serve.txt").read_text(encoding="utf-8")


def test_the_compose_file_holds_together() -> None:
    compose = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
    service, db = compose["services"]["service"], compose["services"]["db"]
    context = (FOLDER / service["build"]["context"]).resolve()
    assert context == ROOT
    assert (context / service["build"]["dockerfile"]).exists()
    assert set(service["depends_on"]) == {"db"}
    assert "healthcheck" in db
    for part in (service, db):
        assert set(part["secrets"]) <= set(compose["secrets"])
    assert {volume.split(":")[0] for volume in db["volumes"]} == set(compose["volumes"])
    assert service["read_only"] is True
    assert [port for port in service["ports"] if not port.startswith("127.0.0.1:")] == []
    (command,) = service["command"]
    assert "--workers 2" in command
    assert re.search(r"\$\$\(cat /run/secrets/db_password\)", command)  # no password in the file, nor in what `docker inspect` shows
    assert "PASSWORD" not in json.dumps(service["environment"])


def test_an_engine_builds_the_image() -> None:
    if shutil.which("docker") is None or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        pytest.skip("no container engine runs here")
    done = subprocess.run(
        ["docker", "build", "--file", "containers/Containerfile", "."], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
