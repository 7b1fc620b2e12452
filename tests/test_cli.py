"""The command line: exit codes, what goes to stdout and what to stderr, and the commands in order."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.loops import loans, written

from makegood import __version__, cli
from makegood.errors import Problem, Refused

TIMED = {"outcome: bad": "outcome: bad, time: day"}


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
    return Shell(monkeypatch, capsys)


def started(*words: object) -> subprocess.Popen[str]:
    code = "import sys; from makegood.cli import main; sys.argv[0] = 'makegood'; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )


def timed(n: int = 300) -> pd.DataFrame:
    """Return loans with a day each: one fold, so that a run is short."""
    return loans(n).assign(day=pd.date_range("2024-01-01", periods=n).strftime("%Y-%m-%d"))


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("space")


@pytest.fixture(scope="module")
def case(space: Path) -> Path:
    return written(space, timed(600).assign(settled=lambda t: t["bad"].map({"yes": "late", "no": "paid"})), replace=TIMED)


@pytest.fixture(scope="module")
def ran(case: Path, space: Path) -> tuple[int, str, str]:
    with started("run", case, "--workspace", space / "runs") as process:
        out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    timed(30).drop(columns="bad").to_csv(tmp_path / "rows.csv", index=False)
    return tmp_path / "rows.csv"


# -------------------------------------------------------------------------------------------------------------------- run


def test_a_useful_model_leaves_0_and_prints_where_the_report_is(ran: tuple[int, str, str]) -> None:
    code, out, err = ran
    assert code == 0, err
    report = Path(out.splitlines()[-1])
    assert report.is_absolute()
    assert report.name == "report.html"
    assert report.exists()
    assert "deploy: " in out
    assert "leak: settled: " in out
    assert "… prepare\n" in err
    assert "Traceback" not in err


def test_progress_says_each_thing_once(ran: tuple[int, str, str]) -> None:
    lines = [line for line in ran[2].splitlines() if line.startswith("…")]
    assert len(lines) == len(set(lines))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are told by /proc")
def test_a_loop_that_is_told_to_end_leaves_no_service_behind(tmp_path: Path) -> None:
    with started("loop", "digits", "--budget", "2s", "--workspace", tmp_path) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        services: list[str] = []
        give_up = time.monotonic() + 240
        while not services and process.poll() is None and time.monotonic() < give_up:
            time.sleep(0.2)
            found = children.read_text().split() if children.exists() else []
            services = [pid for pid in found if b"--replay" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
    assert services
    assert process.returncode == 128 + signal.SIGTERM
    assert not Path(f"/proc/{services[0]}").exists()


def test_drift_is_not_injected_where_rows_have_a_time(makegood: Shell, case: Path) -> None:
    code, _, err = makegood("loop", case, "--drift", "mix")
    assert code == 2
    assert "--drift: got 'mix'; expected nothing where rows have a time" in err


def test_json_is_one_object_on_stdout(case: Path, space: Path) -> None:
    with started("run", case, "--json", "--workspace", space / "json") as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out.count("\n") == 1
    said = json.loads(out)
    assert {*"case run bundle report seconds value baselines gain metrics verdict why n".split()} <= said.keys()
    assert said["verdict"] == "deploy"
    assert [leak["column"] for leak in said["leaks"]] == ["settled"]
    assert "deploy: " in err


def test_a_refused_model_leaves_1_and_decides_only_when_forced(makegood: Shell, tmp_path: Path, rows: Path) -> None:
    frame = timed()
    frame["bad"] = frame["bad"].sample(frac=1, random_state=1).to_numpy()
    where = ("--workspace", tmp_path / "runs")
    code, out, _ = makegood("run", written(tmp_path, frame, replace=TIMED), *where)
    assert code == 1
    assert "refuse: " in out
    assert out.splitlines()[-1].endswith("report.html")
    code, out, err = makegood("decide", "loans", rows, "--out", tmp_path / "out.csv", *where)
    assert (code, out) == (1, "")
    assert err.startswith("refused: loans: got 'verdict refuse'; ")
    code, out, _ = makegood("decide", "loans", rows, "--out", tmp_path / "out.csv", "--force", *where)
    assert code == 0
    assert out.splitlines()[-1] == str(tmp_path / "out.csv")


def test_a_look_at_one_stage_hides_no_model(ran: object, makegood: Shell, case: Path, space: Path) -> None:
    before = makegood("report", case, "--workspace", space / "runs")
    code, out, _ = makegood("run", case, "--until", "prepare", "--budget", "1s", "--seed", 3, "--workspace", space / "runs")
    assert code == 0
    assert out.startswith("leak: settled")
    assert len(out.splitlines()) == 1
    assert makegood("report", case, "--workspace", space / "runs") == before


def test_a_run_until_the_bundle_has_no_report(makegood: Shell, case: Path, tmp_path: Path) -> None:
    code, out, _ = makegood("run", case, "--until", "bundle", "--workspace", tmp_path)
    assert code == 0
    assert out.splitlines()[-1].startswith("bundle: ")
    code, out, err = makegood("report", "loans", "--workspace", tmp_path)
    assert (code, out) == (2, "")
    assert "got 'no report'; expected a run that went as far as the report; makegood run loans" in err


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send to another process")
def test_ctrl_c_keeps_what_is_finished(tmp_path: Path) -> None:
    case = written(tmp_path, loans(), replace={"families: linear": "families: auto", "1s": "300s"})
    with started("run", case, "--workspace", tmp_path / "runs") as process:
        assert process.stderr is not None
        seen: list[str] = []
        for line in process.stderr:
            seen.append(line)
            if "round 2 of" in line:
                process.send_signal(signal.SIGINT)
                break
        began = time.perf_counter()
        out, err = process.communicate(timeout=60)
    assert process.returncode in (0, 1), err
    assert "Traceback" not in err
    assert "round 11 of 11" not in err
    assert time.perf_counter() - began < 30
    report = Path(out.splitlines()[-1])
    assert report.name == "report.html"
    assert report.exists()
    assert (report.parent / "bundle" / "manifest.json").exists()
    assert json.loads((report.parent / "train.json").read_text(encoding="utf-8"))["interrupted"]


# ------------------------------------------------------------------------------------------------------------------ wrong


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("run", "credit-rsk"),
            "error: case: got 'credit-rsk'; expected a case file, or one of credit-risk, diagnosis, digits, essay-score, support-intent; did you mean 'credit-risk'?",
        ),
        (
            ("run", "CASE", "--until", "repot"),
            "error: --until: got 'repot'; expected one of prepare, train, evaluate, optimise, bundle, report",
        ),
        (("run", "CASE", "--budget", "soon"), "error: --budget: got 'soon'; expected a duration such as 60s, 5m, 12h or 180d"),
        (("run", "CASE", "--budget", "0"), "error: --budget: got '0'; expected more than no time"),
        (("report", "nothing"), "got 'nothing'; expected a case that was run; makegood run nothing"),
        (
            ("plan", "--port", "1"),
            "error: makegood plan; expected a later version: the business plan is not built yet; see ROADMAP.md",
        ),
    ],
)
def test_wrong_input_leaves_2_with_a_message(makegood: Shell, case: Path, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    place = () if words[0] == "plan" else ("--workspace", tmp_path)
    code, out, err = makegood(*(case if w == "CASE" else w for w in words), *place)
    assert (code, out) == (2, "")
    assert message in err
    code, out, err = makegood(*(case if w == "CASE" else w for w in words), *place, "--json")
    assert code == 2
    if words[0] != "plan":
        assert json.loads(out)["error"] == "CaseError"
    assert message in err


def test_what_typer_refuses_leaves_2(makegood: Shell) -> None:
    assert makegood("run")[0] == 2
    assert makegood("run", "x", "--seed", "one")[0] == 2
    assert makegood("fly")[0] == 2


@pytest.mark.parametrize(
    ("raised", "code", "words"),
    [
        (Refused(Problem("a", "b", "c")), 1, "refused: a: got 'b'; expected c"),
        (KeyboardInterrupt(), 130, "stopped"),
        (BrokenPipeError(), 141, ""),
        (ZeroDivisionError("zero"), 3, "This is a defect of makegood"),
    ],
)
@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_each_kind_of_end_has_its_code(makegood: Shell, raised: BaseException, code: int, words: str, flags: tuple[str, ...]) -> None:
    def ends() -> None:
        raise raised

    makegood.monkeypatch.setattr(cli, "app", ends)
    left, out, err = makegood("cases", *flags)
    assert left == code
    assert words in err
    if flags and code in (1, 3):
        assert set(json.loads(out)) == {"error", "problems"}
    else:
        assert out == ""


# ---------------------------------------------------------------------------------------------------------- other commands


def test_check_says_what_stands_in_the_way(makegood: Shell, case: Path, tmp_path: Path) -> None:
    code, out, _ = makegood("check", case)
    assert code == 0
    assert "leak: settled: " in out
    assert out.splitlines()[-1] == "nothing stands in the way of a run"
    code, out, err = makegood("check", case, "--json")
    assert code == 0
    assert json.loads(out)["leaks"][0]["column"] == "settled"
    assert "leak: settled" in err
    bad = written(tmp_path, loans(), replace={"yes: -0.5": "yse: -0.5"})
    code, out, _ = makegood("check", bad)
    assert code == 2
    assert "yse" in out
    code, out, _ = makegood("check", bad, "--json")
    assert code == 2
    assert json.loads(out)["problems"]


def test_rows_may_be_read_from_another_file(makegood: Shell, case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed(200).to_csv(tmp_path / "other.csv", index=False)
    monkeypatch.chdir(tmp_path)  # a path is the user's, not the case's
    code, out, _ = makegood("run", case, "--data", "other.csv", "--until", "prepare", "--workspace", "runs", "--json")
    assert code == 0
    assert (json.loads(out)["split"]["train"], json.loads(out)["split"]["test"]) == (160, 40)
    code, out, _ = makegood("check", case, "--data", "other.csv")
    assert code == 0
    code, out, _ = makegood("check", case, "--data", "absent.csv")
    assert code == 2
    assert "error: data.source: got 'absent.csv'; expected a readable file" in out
    code, _, err = makegood("run", case, "--data", "https://example.org/other.csv", "--workspace", "runs")
    assert code == 2
    assert "error: data.sha256: got 'nothing'; expected the SHA-256 of the file" in err


@pytest.mark.parametrize("variable", ["MAKEGOOD_CACHE", "XDG_CACHE_HOME"])
def test_the_environment_says_where_fetched_files_are_kept(
    makegood: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    for name in ("MAKEGOOD_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    frame = loans()
    frame.to_csv(tmp_path / "loans.csv", index=False)
    sha256 = hashlib.sha256((tmp_path / "loans.csv").read_bytes()).hexdigest()
    kept = tmp_path / ("" if variable == "MAKEGOOD_CACHE" else "makegood") / sha256 / "loans.csv"
    kept.parent.mkdir(parents=True)
    (tmp_path / "loans.csv").rename(kept)
    remote = f"source: https://makegood.invalid/loans.csv, sha256: {sha256}"
    path = written(tmp_path / "case", frame, replace={"source: loans.csv": remote})
    code, out, _ = makegood("check", path)
    assert (code, out.splitlines()[-1]) == (0, "nothing stands in the way of a run")
    kept.unlink()
    code, out, _ = makegood("check", path)  # no name ends in .invalid (RFC 2606)
    assert code == 2
    assert "error: data.source: got 'https://makegood.invalid/loans.csv: " in out
    assert "fetch the file by hand and write data.source: PATH (or --data PATH)" in out


def test_decide_writes_a_file_and_says_what_it_did(ran: object, makegood: Shell, space: Path, rows: Path, tmp_path: Path) -> None:
    where = ("--out", tmp_path / "out.csv", "--workspace", space / "runs")
    code, out, _ = makegood("decide", "loans", rows, *where)
    assert code == 0
    assert "approve: " in out
    assert "promised: " in out
    assert out.splitlines()[-1] == str((tmp_path / "out.csv").resolve())
    assert len(pd.read_csv(tmp_path / "out.csv")) == 30
    pd.read_csv(rows).assign(extra=1).to_csv(rows, index=False)
    code, out, err = makegood("decide", "loans", rows, "--json", *where)
    assert code == 0
    assert json.loads(out)["n"] == 30
    assert "note: columns that the model does not know were ignored: day, extra" in err


def test_report_prints_where_it_is(ran: tuple[int, str, str], makegood: Shell, space: Path) -> None:
    where = ("report", "loans", "--workspace", space / "runs")
    assert makegood(*where)[:2] == (0, ran[1].splitlines()[-1] + "\n")
    code, out, _ = makegood(*where, "--json")
    assert code == 0
    assert json.loads(out) == {"report": ran[1].splitlines()[-1]}


def test_init_writes_a_case_that_checks(makegood: Shell, tmp_path: Path) -> None:
    loans().to_csv(tmp_path / "t.csv", index=False)
    words: tuple[Any, ...] = ("init", tmp_path / "t.csv", "--outcome", "bad", "--unit", "EUR", "--out", tmp_path / "t.yaml")
    code, out, err = makegood(*words, "--payoff", "lend:no=10", "--payoff", "lend:yes=-50", "--payoff", "leave=0")
    assert code == 0
    assert out == f"{tmp_path / 't.yaml'}\n"
    assert "next: makegood run" in err
    assert makegood("check", tmp_path / "t.yaml")[0] == 0
    assert makegood(*words)[0] == 2


def test_version_help_and_cases(makegood: Shell) -> None:
    assert makegood("--version")[:2] == (0, f"{__version__}\n")
    assert "promise about money" in makegood("-h")[1]
    assert "credit-risk\n    " in makegood("cases")[1]
    assert [c["case"] for c in json.loads(makegood("cases", "--json")[1])["cases"]] == [
        "credit-risk",
        "diagnosis",
        "digits",
        "essay-score",
        "support-intent",
    ]


def test_doctor(makegood: Shell, tmp_path: Path) -> None:
    code, out, _ = makegood("doctor", "--workspace", tmp_path)
    assert code == 0
    assert "ok   scoring: onnxruntime" in out
    (tmp_path / "file").write_text("", encoding="utf-8")
    code, out, _ = makegood("doctor", "--workspace", tmp_path / "file")
    assert code == 2
    assert "FAIL workspace: " in out
    code, out, _ = makegood("doctor", "--workspace", tmp_path / "file", "--json")
    assert code == 2
    assert not json.loads(out)["ok"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminal")
def test_on_a_terminal_progress_is_a_bar_and_init_asks(case: Path, tmp_path: Path) -> None:
    import pty

    main, terminal = pty.openpty()
    code = "import sys; from makegood.cli import main; sys.argv[0] = 'makegood'; main()"
    words = ["run", str(case), "--until", "prepare", "--workspace", str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, stderr=terminal, timeout=60)
    assert done.returncode == 0
    assert b"settled" in done.stdout
    loans().to_csv(tmp_path / "t.csv", index=False)
    os.write(main, b"call\nwait\npoints\n3\n")
    words = ["init", str(tmp_path / "t.csv"), "--outcome", "bad", "--out", str(tmp_path / "t.yaml")]
    done = subprocess.run([sys.executable, "-c", code, *words], stdin=terminal, stdout=terminal, stderr=terminal, timeout=60)
    os.close(terminal)
    os.close(main)
    assert done.returncode == 0
    assert "-1 / 3" in (tmp_path / "t.yaml").read_text(encoding="utf-8")
