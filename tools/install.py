"""Install a hash-locked set of packages, and makegood itself, into a virtual environment.

    python tools/install.py .venv requirements/cases.txt
    python tools/install.py .venv requirements/dev.txt requirements/torch.txt

Every file that is fetched is checked against the hash in the lock, and only wheels are taken: nothing is built here but makegood.
What comes in another build on each machine (requirements/torch.txt) is fetched by pip, at its pinned version.
uv does it in seconds where pip talks to the public index; where pip is told of another one (or uv does not get through), pip does it.
The standard library is enough to run this.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD, FAST = ROOT / "requirements" / "build.txt", ROOT / "requirements" / "uv.txt"
LOCKED = ("--require-hashes", "--no-deps", "--only-binary", ":all:", "--quiet")
OWN_ROAD = ("index-url", "no-index", "proxy", "client-cert")
"""What uv does not read from pip's configuration, and must not go round."""


def main() -> None:
    """Make the environment, or mend it, so that it holds the lock and makegood."""
    if sys.version_info < (3, 11):  # noqa: UP036
        sys.exit("makegood needs Python 3.11 or newer; this is %d.%d. Name another: make PYTHON=python3.12 demo" % sys.version_info[:2])  # noqa: UP031
    venv, lock, *builds = Path(sys.argv[1]), *(ROOT / name for name in sys.argv[2:])
    print(f"installing {lock.name} into {venv}", file=sys.stderr, flush=True)
    python = environment(venv)
    if not uv(python, lock):
        pip(python, "install", *LOCKED, "--requirement", str(lock))
    for build in builds:
        pip(python, "install", "--only-binary", ":all:", "--quiet", "--requirement", str(build))
    pip(python, "install", *LOCKED, "--requirement", str(BUILD))
    pip(python, "install", "--quiet", "--no-deps", "--no-build-isolation", "--editable", str(ROOT))


def environment(venv: Path) -> Path:
    """Return the interpreter of the virtual environment, made if need be."""
    python = (venv / "bin" / "python").absolute()
    if not python.exists() and subprocess.run([sys.executable, "-m", "venv", str(venv)]).returncode:
        shutil.rmtree(venv, ignore_errors=True)  # a half-made one would pass for whole the next time
        sys.exit("this Python cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv")
    return python


def uv(python: Path, lock: Path) -> bool:
    """Tell whether uv could be used and brought the packages in; that it did not is no error yet."""
    told = subprocess.run([*quiet_pip(python), "config", "list"], capture_output=True, text=True, check=True).stdout
    if not public_index(told):
        return False
    for command in (
        [*quiet_pip(python), "install", *LOCKED, "--requirement", str(FAST)],
        [str(python), "-m", "uv", "pip", "install", "--python", str(python), *LOCKED, "--requirement", str(lock)],
    ):
        if subprocess.run(command).returncode:
            print("uv did not get through; pip takes over", file=sys.stderr, flush=True)
            return False
    return True


def public_index(configuration: str) -> bool:
    """Tell from `pip config list` whether pip talks to the public index, and directly."""
    return not any(line.partition("=")[0].rpartition(".")[2] in OWN_ROAD for line in configuration.splitlines())


def pip(python: Path, *arguments: str) -> None:
    """Run pip in the environment; it says itself what is wrong, and its exit code is ours."""
    code = subprocess.run([*quiet_pip(python), *arguments]).returncode
    if code:
        sys.exit(code)


def quiet_pip(python: Path) -> list[str]:
    """Return the start of a pip command that does not advertise a newer pip."""
    return [str(python), "-m", "pip", "--disable-pip-version-check"]


if __name__ == "__main__":
    main()
