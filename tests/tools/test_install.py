from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run a line of Python beside the installer, which is a script and no part of the package."""
    head = f"import sys; sys.path.insert(0, {str(TOOLS)!r}); from pathlib import Path; import install; "
    return subprocess.run([sys.executable, "-c", head + code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("configuration", "public"),
    [
        ("", True),
        ("global.timeout='60'\nglobal.extra-index-url='https://more.example/simple'", True),
        ("global.timeout='60'\nglobal.index-url='https://packages.example/simple'", False),
        (":env:.index-url='https://packages.example/simple'", False),
        ("install.no-index='true'", False),
        ("user.proxy='http://proxy.example:3128'", False),
    ],
)
def test_pip_keeps_the_work_where_it_is_told_of_another_index(configuration: str, public: bool) -> None:
    assert run(f"print(install.public_index({configuration!r}))").stdout == f"{public}\n"


def test_pip_has_the_last_word_and_its_exit_code_is_ours() -> None:
    assert run("install.pip(Path(sys.executable), 'no-such-command')").returncode == 1


def test_an_environment_that_cannot_be_made_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    done = run(f"install.environment(Path({str(tmp_path / 'file' / 'venv')!r}))")
    assert done.returncode == 1
    assert "apt-get install python3-venv" in done.stderr
