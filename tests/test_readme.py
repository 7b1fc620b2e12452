"""The README is true: its commands run, its links lead somewhere, and both languages say the same."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from makegood.case import NOT_BUILT
from makegood.cli import PLANNED

ROOT = Path(__file__).resolve().parent.parent
READMES = ("README.md", "README.zh.md")
BLOCK = re.compile(r"^<!-- test(?:: (?P<file>[\w.-]+))? -->\n```(?P<language>\w+)\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)
ANY_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def loans(n: int, seed: int) -> pd.DataFrame:
    """Return simulated loans whose default depends on what is asked for and what is earned."""
    rng = np.random.default_rng(seed)
    amount, months, income = rng.uniform(500, 15000, n).round(), rng.choice([6, 12, 24, 36, 48], n), rng.lognormal(7.7, 0.4, n).round()
    risk = 2.2 * (amount / months / income * 4 - 1.2) + rng.normal(0, 0.3, n)
    return pd.DataFrame(
        {
            "applied_at": (pd.Timestamp("2023-01-01") + pd.to_timedelta(rng.integers(0, 1100, n), unit="D")).strftime("%Y-%m-%d"),
            "amount": amount,
            "months": months,
            "income": income,
            "age": rng.integers(20, 75, n),
            "sex": rng.choice(["f", "m"], n),
            "purpose": rng.choice(["car", "home", "study"], n),
            "defaulted": np.where(rng.random(n) < 1 / (1 + np.exp(-risk)), "yes", "no"),
        }
    )


def objects(text: str) -> list[dict[str, Any]]:
    """Return the JSON objects that stand in a text, in order."""
    found, at = [], text.find("{")
    while at >= 0:
        value, end = json.JSONDecoder().raw_decode(text, at)
        found.append(value)
        at = text.find("{", end)
    return found


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_commands_of_the_readme_run(tmp_path: Path) -> None:
    loans(3000, seed=1).to_csv(tmp_path / "loans.csv", index=False)
    loans(200, seed=2).drop(columns="defaulted").to_csv(tmp_path / "applicants.csv", index=False)
    environment = {**os.environ, "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))}
    blocks = list(BLOCK.finditer((ROOT / "README.md").read_text(encoding="utf-8")))
    assert [block["language"] for block in blocks] == ["bash", "yaml", "bash", "bash", "bash", "python"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])  # the printed one may be another's here
    said: list[str] = []
    for block in blocks:
        if block["file"]:
            (tmp_path / block["file"]).write_text(block["body"], encoding="utf-8")
            continue
        command = ["bash", "-euo", "pipefail", "-c"] if block["language"] == "bash" else [sys.executable, "-c"]
        body = block["body"].replace("8000", port)
        done = subprocess.run([*command, body], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{body}\n{done.stdout}\n{done.stderr}"
        said.append(done.stdout)
    ready, answer, receipt, told = objects(said[2])
    assert ready["ready"]
    assert (answer["id"], answer["model"]) == ("loan-1", ready["champion"])
    assert (told["promised"], told["realised"]) == (answer["promise"], receipt["realised"])
    assert "\nwhole\n" in said[2]
    review, loop = (Path(line) for line in said[3].splitlines() if line.endswith(".html"))
    assert "WAIT" in said[3]  # nothing is due yet
    assert review.is_file()
    assert [word for word in ("alarm  ", "retrained  ", "promoted  ", "over never") if word not in said[3]] == []
    assert "Closing the loop earned" in loop.read_text(encoding="utf-8")
    decisions = pd.read_csv(tmp_path / "decisions.csv")
    assert len(decisions) == 200
    assert set(decisions["action"]) == {"approve", "decline"}


def test_both_languages_show_the_same_code() -> None:
    def code(name: str) -> list[tuple[str, str]]:
        blocks = ANY_BLOCK.findall((ROOT / name).read_text(encoding="utf-8"))
        return [(language, re.sub(r"\s*# .*", "", body)) for language, body in blocks]

    def commands(name: str) -> list[str]:
        return re.findall(r"^\| (`makegood [^`]*`)", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)

    english, chinese = READMES
    assert code(english) == code(chinese)
    assert commands(english) == commands(chinese) != []


@pytest.mark.parametrize("name", [*READMES, "CONTRIBUTING.md", "DECISIONS.md", "ROADMAP.md"])
def test_every_link_into_the_repository_leads_somewhere(name: str) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / name).read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


def test_the_readme_names_every_command() -> None:
    told = subprocess.run([sys.executable, "-m", "makegood.cli", "--help"], capture_output=True, text=True, check=True).stdout
    listed = set(re.findall(r"^  (\w+) {2,}\S", told.partition("Commands:")[2], re.MULTILINE))
    assert listed == set(re.findall(r"^\| `makegood (\w+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)) != set()


def test_the_roadmap_names_what_is_refused_by_name() -> None:
    roadmap = (ROOT / "ROADMAP.md").read_text(encoding="utf-8")
    assert [name for name in (*PLANNED, *NOT_BUILT) if f"`{name}" not in roadmap] == []
