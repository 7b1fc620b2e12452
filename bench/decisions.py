"""B4: decisions a second and their latency, beside LitServe, BentoML, MLflow and Ray Serve with the same ONNX model.

    python bench/decisions.py --seconds 10 --rounds 3

One row a request, over loopback, load generator on the same cores. The model is makegood's own of a made-up table like German credit
(20 columns, LightGBM); peers get its graph, and rows prepared already, and answer with probabilities: none prepares, decides, or logs.
makegood reads the raw row, prepares it, scores, calibrates, decides and has the decision in its SQLite ledger, `synchronous=FULL`,
before it answers. Beside them: an application that answers a constant under the same uvicorn settings, and ONNX Runtime called in
process. Every server runs alone, one after the other, round by round; a figure is the median over rounds. Each peer runs by its
defaults and by what its documentation recommends for throughput, and counts by the better one. A peer that cannot be installed or
started is reported with its error. `--profile` writes where the service's time goes (py-spy) to `results/decisions_profile.txt`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

import load
import result
from makegood import pipeline
from makegood.case import Case
from makegood.data import prepare, sources
from makegood.model import Model
from makegood.model import load as load_model

HERE = Path(__file__).resolve().parent
CONNECTIONS = (1, 8, 32, 128)
ROWS = 512  # different requests
START_S, STOP_S = 120.0, 20.0
SEED = 0
CASE = """
case: loans
data: {source: loans.parquet, outcome: outcome}
decision:
  unit: EUR
  actions:
    approve: {payoff: {good: 0.07 * amount * months / 24, bad: -0.5 * amount}}
    decline: {payoff: 0}
train: {budget: 40s, families: [lightgbm]}
"""


def table(n: int, seed: int) -> pa.Table:
    """Return a made-up table with the columns of German credit: 7 numbers and 13 categories, and an outcome that depends on some."""
    rng = np.random.default_rng(seed)
    levels = {
        "checking": 4, "history": 5, "purpose": 10, "savings": 5, "employed": 5, "status": 4, "guarantors": 3, "property": 4,
        "plans": 3, "housing": 3, "job": 4, "telephone": 2, "abroad": 2,
    }  # fmt: skip
    codes = {name: rng.integers(0, k, n) for name, k in levels.items()}
    months, amount, age = rng.integers(4, 72, n), np.round(np.exp(rng.normal(7.8, 0.8, n))), rng.integers(19, 75, n)
    numbers = {"months": months, "amount": amount, "age": age, "rate": rng.integers(1, 5, n), "since": rng.integers(1, 5, n)}
    numbers |= {"credits": rng.integers(1, 5, n), "dependants": rng.integers(1, 3, n)}
    risk = 0.03 * (months - 20) + 0.5 * np.log(amount / 2500) - 0.02 * (age - 35) - 0.6 * (codes["checking"] - 1.5)
    risk += 0.3 * (codes["savings"] == 0) + 0.5 * (codes["history"] == 4) + rng.logistic(size=n) - 1.0
    columns: dict[str, Any] = {name: [f"A{code}" for code in codes[name]] for name in levels}
    return pa.table(columns | numbers | {"outcome": np.where(risk > 0, "bad", "good")})


# ------------------------------------------------------------------------------------------------------------------ servers


@dataclass(frozen=True)
class Server:
    """What is measured: how it starts on a port, the path, and the bodies of its requests."""

    name: str
    command: Callable[[int], list[str]]
    path: str
    bodies: Sequence[bytes]
    env: dict[str, str] = field(default_factory=dict)
    cwd: Path = HERE


@dataclass(frozen=True)
class Peer:
    """Another server of models: what it needs, and a server of it for each mode."""

    package: str
    requirements: tuple[str, ...]
    modes: tuple[str, ...] = ("default", "best")


PEERS = {
    "litserve": Peer("litserve", ("litserve==0.2.19",)),
    "bentoml": Peer("bentoml", ("bentoml==1.4.40",)),
    "mlflow": Peer("mlflow", ("mlflow==3.17.2", "onnx")),
    "ray": Peer("ray", ("ray[serve]==2.60.0",)),
}
COMMON = ("onnxruntime==1.32.0", "numpy")


def installed(name: str, home: Path) -> Path:
    """Return the Python of a peer's own virtual environment, made when first needed; raises `CalledProcessError`."""
    python = home / name / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(home / name)], check=True)
    have = subprocess.run([python, "-m", "pip", "freeze"], check=True, capture_output=True, text=True).stdout.lower()
    if f"{PEERS[name].package}==" not in have:
        needed = [*PEERS[name].requirements, *COMMON]
        subprocess.run([python, "-m", "pip", "install", "-q", *needed], check=True, capture_output=True, text=True)
    return python


def servers_of(name: str, python: Path, model: Path, features: np.ndarray[Any, Any], work: Path) -> list[Server]:
    """Return a peer's servers, one for each mode."""
    rows = [[round(float(v), 7) for v in row] for row in features]
    one = [json.dumps({"features": row}).encode() for row in rows]
    listed = [json.dumps({"features": [row]}).encode() for row in rows]
    inputs = [json.dumps({"inputs": [row]}).encode() for row in rows]
    scripts = HERE / "peers"
    if name == "mlflow":
        folder = work / "mlflow"
        if not folder.exists():
            subprocess.run([python, scripts / "mlflow_model.py", model, folder], check=True, capture_output=True, text=True)
        path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"

    def server(mode: str) -> Server:
        match name:
            case "bentoml":
                env = {"MODEL": str(model), "MODE": mode, "BENTOML_DO_NOT_TRACK": "true", "BENTOML_HOME": str(work / "bentoml")}
                what = [str(python.parent / "bentoml"), "serve", "bentoml_scorer:Scorer", "--host", "127.0.0.1", "--port"]
                return Server(f"{name} {mode}", lambda port: [*what, str(port)], "/predict", listed, env, scripts)
            case "mlflow":
                what = [
                    str(python.parent / "mlflow"),
                    "models",
                    "serve",
                    "-m",
                    str(folder),
                    "--env-manager",
                    "local",
                    "--host",
                    "127.0.0.1",
                ]
                what += ["--workers", "2"] if mode == "best" else []
                return Server(f"{name} {mode}", lambda port: [*what, "--port", str(port)], "/invocations", inputs, {"PATH": path})
            case _:
                script, at = str(scripts / f"{name}_scorer.py"), "/predict" if name == "litserve" else "/"
                return Server(f"{name} {mode}", lambda port: [str(python), script, str(model), str(port), mode], at, one)

    return [server(mode) for mode in PEERS[name].modes]


def ours(bundle: Path, work: Path, bodies: Sequence[bytes]) -> list[Server]:
    """Return makegood's service, and what answers a constant under its settings."""
    serve = [str(Path(sys.executable).parent / "makegood"), "serve", str(bundle), "--workspace", str(work), "--force", "--port"]
    constant = [sys.executable, str(HERE / "peers" / "constant.py")]
    return [
        Server("makegood", lambda port: [*serve, str(port)], "/v1/decisions", bodies),
        Server("constant", lambda port: [*constant, str(port)], "/v1/decisions", bodies),
    ]


@contextmanager
def running(server: Server, log: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Yield the port and the process of a server that answers, and stop it with all that it started; raises `ConnectionError`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    with log.open("wb") as out:
        process = subprocess.Popen(
            server.command(port), stdout=out, stderr=out, cwd=server.cwd, env={**os.environ, **server.env}, start_new_session=True
        )
    try:
        end = time.perf_counter() + START_S
        asked = load.request(server.path, server.bodies[0])
        while True:
            try:
                load.once(port, asked)
                break
            except OSError as error:
                if process.poll() is not None or time.perf_counter() > end:
                    raise ConnectionError(f"{error}\n{log.read_text(errors='replace')[-1500:]}") from None
                time.sleep(0.2)
        yield port, process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


# ----------------------------------------------------------------------------------------------------------------- measuring


def checked(server: Server, port: int, raw: np.ndarray[Any, Any]) -> None:
    """Raise `ConnectionError` unless a peer's answers hold the probabilities of the model, and makegood's an action and its model."""
    for i in (0, 1, 7):
        body = load.once(port, load.request(server.path, server.bodies[i]))
        if server.name == "makegood":
            answer = json.loads(body)
            if answer["action"] not in ("approve", "decline") or not answer["model"].startswith("loans@"):
                raise ConnectionError(f"no decision: {body!r}")
        elif server.name != "constant":
            found = [float(text) for text in re.findall(rb"-?\d+\.\d+(?:e-?\d+)?", body)]
            if not np.allclose(found[-raw.shape[1] :], raw[i], atol=1e-4):
                raise ConnectionError(f"other probabilities than {raw[i].tolist()}: {body!r}")


def in_process(model: Model, features: np.ndarray[Any, Any], seconds: float) -> load.Load:
    """Return what ONNX Runtime alone takes, called row by row."""
    session, out = model.scorer.session, load.Load()
    start, i = time.perf_counter(), 0
    while (now := time.perf_counter()) < start + seconds:
        session.run(["raw"], {"features": features[i % len(features)][None]})
        out.latencies.append(time.perf_counter() - now)
        i += 1
    out.seconds = time.perf_counter() - start
    return out


def commit_s(folder: Path) -> dict[str, float]:
    """Return what an fsync, and a commit of one 300-byte row with `synchronous=FULL`, take on this disk: medians, in ms."""
    spent: dict[str, list[float]] = {"fsync_ms": [], "commit_ms": []}
    with (folder / "probe").open("wb") as file:
        for _ in range(200):
            file.write(b"x" * 4096)
            file.flush()
            start = time.perf_counter()
            os.fdatasync(file.fileno())
            spent["fsync_ms"].append(time.perf_counter() - start)
    connection = sqlite3.connect(folder / "probe.sqlite", isolation_level=None)
    connection.executescript("pragma journal_mode=wal; pragma synchronous=full; create table if not exists t (x blob)")
    for _ in range(200):
        start = time.perf_counter()
        connection.execute("insert into t values (?)", (b"x" * 300,))
        spent["commit_ms"].append(time.perf_counter() - start)
    connection.close()
    return {name: round(statistics.median(values) * 1000, 3) for name, values in spent.items()}


def profiled(process: int, port: int, server: Server, spy: Path, seconds: float) -> str:
    """Return where a process spends its time at 32 connections: the share of samples by function, own and with what it calls."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "stacks"
        command = [spy, "record", "-p", str(process), "-f", "raw", "-r", "200", "-d", str(int(seconds)), "-o", out, "--nonblocking"]
        with subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as sampling:
            load.drive(port, [load.request(server.path, body) for body in server.bodies], 32, seconds + 3)
            sampling.wait()
        own: Counter[str] = Counter()
        whole: Counter[str] = Counter()
        total = 0
        for line in out.read_text(encoding="utf-8").splitlines():
            stack, _, count = line.rpartition(" ")
            frames = [re.sub(r":\d+\)$", ")", frame) for frame in stack.split(";")]
            own[frames[-1]] += int(count)
            whole.update(dict.fromkeys(frames, int(count)))
            total += int(count)
    lines = [f"# {total} samples at 200 Hz of the threads that were busy; 32 connections", "", "own %  function"]
    lines += [f"{100 * n / total:5.1f}  {name}" for name, n in own.most_common(40)]
    lines += ["", "with callees %  function"]
    lines += [f"{100 * n / total:5.1f}  {name}" for name, n in whole.most_common(60)]
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------------------------------------------------------------- main


def main() -> None:
    """Measure, and write the result."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    options.add_argument("--seconds", type=float, default=10.0, help="a cell")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--peers", default=",".join(PEERS), help="names, with commas between; '' for none")
    options.add_argument("--connections", default=",".join(map(str, CONNECTIONS)))
    options.add_argument("--home", type=Path, default=Path(tempfile.gettempdir()) / "makegood-peers", help="of the peers' environments")
    options.add_argument("--profile", type=Path, help="py-spy: also profile the service, into results/decisions_profile.txt")
    options.add_argument("--name", default="decisions", help="of the result")
    said = options.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the server that runs is stopped too
    connections = [int(c) for c in said.connections.split(",")]
    with tempfile.TemporaryDirectory(prefix="makegood-b4-") as folder:
        work = Path(folder)
        figures = measured(work, [p for p in said.peers.split(",") if p], said.home.resolve(), connections, said)
    result.write(said.name, figures, ("makegood", "onnxruntime", "uvicorn", "uvloop", "httptools", "msgspec", "numpy"))


def measured(work: Path, peers: Sequence[str], home: Path, connections: Sequence[int], said: argparse.Namespace) -> dict[str, Any]:
    """Return all figures."""
    pyarrow.parquet.write_table(table(5000, SEED), work / "loans.parquet")
    bundle = pipeline.run(Case.parse(CASE, folder=work), workspace=work, until="bundle").folder / "bundle"
    model = load_model(bundle)
    fresh = sources.read(table(ROWS, SEED + 1).drop_columns(["outcome"])).table
    bodies = [json.dumps(row).encode() for row in fresh.to_pylist()]
    features = model.transform.apply(model.transform.read(prepare.raw_columns(fresh))[0])
    raw = np.concatenate([model.scorer(features[i : i + 1]) for i in range(ROWS)])
    problems: dict[str, str] = {}
    servers = ours(bundle, work, bodies)
    for name in peers:
        try:
            servers += servers_of(name, installed(name, home), bundle / "scorer.onnx", features, work)
        except subprocess.CalledProcessError as error:
            problems[name] = str(error.stderr)[-1500:]
    cells: dict[str, dict[int, list[load.Load]]] = {server.name: {c: [] for c in connections} for server in servers}
    alone, disks = [], []
    for round_ in range(said.rounds):
        alone.append(in_process(model, features, said.seconds))
        disks.append(commit_s(work))
        for server in servers if round_ % 2 == 0 else servers[::-1]:
            if server.name in problems:
                continue
            print(f"round {round_ + 1}: {server.name}", file=sys.stderr, flush=True)
            try:
                with running(server, work / "server.log") as (port, process):
                    checked(server, port, raw)
                    requests = [load.request(server.path, body) for body in server.bodies]
                    load.drive(port, requests, 8, min(2.0, said.seconds))
                    for c in connections:
                        cells[server.name][c].append(load.drive(port, requests, c, said.seconds))
                    if said.profile and server.name == "makegood" and round_ == 0:
                        text = profiled(process.pid, port, server, said.profile, max(said.seconds, 5.0))
                        (result.RESULTS / f"{said.name}_profile.txt").write_text(text, encoding="utf-8")
            except ConnectionError as error:
                problems[server.name] = str(error)[-1500:]
    figures = {name: {str(c): of_rounds(rounds) for c, rounds in by.items() if rounds} for name, by in cells.items()}
    disk = {name: round(statistics.median(one[name] for one in disks), 3) for name in disks[0]}
    told = {"seconds": said.seconds, "rounds": said.rounds, "features": features.shape[1], "graph_bytes": len(model.scorer.model)}
    told |= {"request_bytes": {"makegood": len(bodies[0]), **{s.name: len(s.bodies[0]) for s in servers[2:]}}}
    told |= {"peers": {name: [*PEERS[name].requirements, *COMMON] for name in peers}}
    return {
        **told,
        "disk": disk,
        "onnxruntime_in_process": of_rounds(alone),
        "servers": figures,
        "problems": problems,
        "targets": targets(figures, of_rounds(alone), disk),
    }


def of_rounds(rounds: Sequence[load.Load]) -> dict[str, Any]:
    """Return the median of each figure over rounds, and how far they lie apart in requests a second."""
    each = [one.figures() for one in rounds]
    out: dict[str, Any] = {
        name: round(statistics.median(float(one[name]) for one in each if name in one), 3) for name in each[0] if name != "example"
    }
    rates = [float(one["per_second"]) for one in each]
    examples = [one["example"] for one in each if one.get("example")]
    return out | {"slowest": min(rates), "fastest": max(rates)} | ({"example": examples[0]} if examples else {})


def targets(figures: dict[str, dict[str, Any]], alone: dict[str, Any], disk: dict[str, float]) -> dict[str, Any]:
    """Return what B4 asks for, and whether it holds; None where it was not measured."""
    mine, constant = figures.get("makegood", {}), figures.get("constant", {})
    best: dict[str, float] = {}
    for name, by in figures.items():
        peer = name.split()[0]
        if peer in PEERS and "32" in by:
            best[peer] = max(best.get(peer, 0.0), by["32"]["per_second"])
    out: dict[str, Any] = {"best_of_peers_at_32": best}
    if best and "32" in mine:
        rate, middle = mine["32"]["per_second"], statistics.median(best.values())
        out["more_than_every_peer"] = rate > max(best.values())
        out["times_the_median_peer"] = {"is": round(rate / middle, 2), "target": 3.0, "met": rate >= 3 * middle}
    if "128" in mine and "128" in constant:
        share = mine["128"]["per_second"] / constant["128"]["per_second"]
        out["share_of_constant_at_128"] = {"is": round(share, 3), "target": 0.5, "met": share >= 0.5}
    if "1" in mine:
        limit = alone["p50_ms"] + 0.5 + disk["commit_ms"]
        out["p50_ms_at_1"] = {"is": mine["1"]["p50_ms"], "limit": round(limit, 3), "met": mine["1"]["p50_ms"] <= limit}
    return out


if __name__ == "__main__":
    main()
