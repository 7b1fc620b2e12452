"""B12: how many packages and megabytes an installation takes, the core's and a serving bundle's.

    .venv/bin/python bench/size.py

Each lock goes into a fresh virtual environment, by the same road as `make demo`; counted are the files of every package that came on
top of the empty one, makegood's own included and bytecode left out. Each environment then proves its use: the core runs the command
line, the serving list loads the whole service. The peers' packages are counted by resolving them for the same Python, uninstalled.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import result

ROOT = Path(__file__).resolve().parent.parent
INSTALLERS = frozenset({"pip", "setuptools", "uv", "flit-core"})
"""What installs, and need not be there afterwards."""
PEERS = ("autogluon.tabular[all]", "mlflow")
FILES = """
import re
from importlib.metadata import distributions

for found in distributions():
    paths = {path.locate() for path in found.files or () if path.suffix != ".pyc"}
    print(re.sub("[-_.]+", "-", found.name).lower(), sum(path.stat().st_size for path in paths if path.exists()))
"""
"""Run inside a measured environment: package and bytes, one a line."""


def main() -> None:
    """Install both lists, count, resolve the peers, and write the result."""
    core = installed("core", "from makegood.cli import app")
    serve = installed("serve", "import makegood.cli, makegood.serving.server, makegood.serving.supervisor")
    rows: dict[str, dict[str, Any]] = {
        "core": {"packages": len(core), "megabytes": megabytes(core), "limit": "45 packages", "met": len(core) <= 45},
        "serve": {"packages": len(serve), "megabytes": megabytes(serve), "limit": "250 MB, no torch"},
    }
    rows["serve"]["met"] = rows["serve"]["megabytes"] <= 250 and "torch" not in serve
    heaviest = {name: megabytes({name: core[name]}) for name in sorted(core, key=lambda name: -core[name])[:6]}
    result.write("size", {"rows": rows, "heaviest_megabytes": heaviest, "peers_packages": {peer: resolved(peer) for peer in PEERS}})


def installed(name: str, proof: str) -> dict[str, int]:
    """Return package → bytes that `requirements/NAME.txt` and makegood bring into a fresh environment, in which `proof` runs."""
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder) / "venv" / "bin" / "python"
        subprocess.run([sys.executable, str(ROOT / "tools" / "install.py"), str(python.parents[1]), f"requirements/{name}.txt"], check=True)
        listed = subprocess.run([str(python), "-c", FILES], capture_output=True, text=True, check=True).stdout
        subprocess.run([str(python), "-c", proof], check=True)
    sizes = {package: int(size) for package, size in (line.split() for line in listed.splitlines()) if package not in INSTALLERS}
    own = sum(path.stat().st_size for path in (ROOT / "src").rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {**sizes, "makegood": own}  # installed as a link to this folder


def megabytes(sizes: dict[str, int]) -> float:
    """Return the sum of some sizes in megabytes."""
    return round(sum(sizes.values()) / 1e6, 1)


def resolved(requirement: str) -> int:
    """Return how many packages a requirement brings, itself included."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-annotate", "--no-header", "-"]
    listed = subprocess.run(command, input=requirement, capture_output=True, text=True, check=True).stdout
    return sum("==" in line for line in listed.splitlines())


if __name__ == "__main__":
    main()
