"""Files and a real service: rows that it decides on, outcomes that come late, answers that are lost on the way."""

from __future__ import annotations

import csv
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from tests import bundles, misfortune
from tests.serving import lives, processes

from makegood import Client, ServiceError, decision_file, pipeline, remote
from makegood.client import Outcome
from makegood.errors import CaseError, DataError
from makegood.ledger.reading import Reader
from makegood.retry import Patience

QUICK = Patience(attempts=8, total_s=60.0, first_s=0.01, longest_s=0.1)
ROWS = 120


def silent(stage: str, share: float) -> None:
    """Show no progress."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[processes.Running]:
    """Yield a service of the loans case with reasons."""
    space = processes.workspace(tmp_path_factory.mktemp("space"), lives.reasoning())
    with processes.serving(space) as running:
        yield running


def rows(folder: Path, seed: int) -> Path:
    """Write rows to decide on, other ones for each seed, with a column that nobody knows."""
    table = bundles.table(ROWS, seed)[0]
    path = folder / "rows.csv"
    pyarrow.csv.write_csv(table.append_column("branch", pa.array(["x"] * ROWS)), path)
    return path


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def decisions(service: processes.Running) -> int:
    """Return how many decisions the ledger holds."""
    reader = Reader.open(str(service.said["ledger"]))
    try:
        return sum(len(batch) for batch in reader.scan(kinds=["decision"]))
    finally:
        reader.close()


def through(service: processes.Running) -> misfortune.Work:
    """Return the work of a proxy before the service."""

    def work(method: str, path: str, headers: Mapping[str, str], body: bytes) -> misfortune.Answer:
        kept = {name: headers[name] for name in ("content-type", "idempotency-key") if name in headers}
        answer = service.ask(method, path, content=body, headers=kept)
        return answer.status_code, {n: v for n, v in answer.headers.items() if n in ("content-type", "idempotent-replay")}, answer.content

    return work


def test_a_file_is_decided_on_as_by_the_bundle_itself(service: processes.Running, tmp_path: Path) -> None:
    path = rows(tmp_path, 2)
    with Client(service.url, patience=QUICK) as client:
        told = remote.decide_file(client, path, tmp_path / "there.csv", silent)
    here = pipeline.decide_file(str(lives.reasoning().folder), path, tmp_path / "here.csv")
    ours, theirs = lines(tmp_path / "here.csv"), lines(tmp_path / "there.csv")
    assert [list(line) for line in theirs] == [list(line) for line in ours]
    assert len({line["id"] for line in theirs}) == told.n == ROWS
    for mine, other in zip(ours, theirs, strict=True):
        if other["action"] == mine["action"]:  # a file at hand keeps its limits exactly, a service in the long run
            assert float(other["promise"]) == pytest.approx(float(mine["promise"]), abs=1e-6)  # the ledger keeps millionths
        assert float(other["p_yes"]) == pytest.approx(float(mine["p_yes"]), abs=1e-9)
    assert sum(a["action"] == b["action"] for a, b in zip(ours, theirs, strict=True)) > 0.9 * ROWS
    assert "columns that the model does not know were ignored: sex, branch" in told.notes
    assert sum(told.actions.values()) == sum(told.models.values()) == ROWS
    assert (
        set(told.to_json())
        == {"n", "actions", "promised", "unit", "out", "notes", "models", "again"}
        <= {*here.to_json(), "models", "again"}
    )


def test_no_decision_is_doubled_though_answers_are_lost(service: processes.Running, tmp_path: Path) -> None:
    path, before = rows(tmp_path, 3), decisions(service)
    fates = ["", "drop", "503:0", "drop", "garbage", "429:0", "drop"]
    with misfortune.server(through(service), fates) as proxy, Client(proxy.url, patience=QUICK) as client:
        told = remote.decide_file(client, path, tmp_path / "first.csv", silent)
        again = remote.decide_file(client, path, tmp_path / "second.parquet", silent)
    assert decisions(service) - before == ROWS
    assert len(proxy.came) > 2 * (1 + -(-ROWS // remote.MOST_ROWS))
    assert again.again == ROWS > told.again > 0
    second = pyarrow.parquet.read_table(tmp_path / "second.parquet").to_pylist()
    assert [(line["id"], line["action"]) for line in lines(tmp_path / "first.csv")] == [(line["id"], line["action"]) for line in second]


def test_an_interrupted_file_goes_on_where_it_was(service: processes.Running, tmp_path: Path) -> None:
    path, before = rows(tmp_path, 4), decisions(service)
    patience = Patience(attempts=2, first_s=0.01)
    with misfortune.server(through(service), ["", "", *["503"] * 9]) as proxy, Client(proxy.url, patience=patience) as client:
        with pytest.raises(ServiceError, match="status 503"):
            remote.decide_file(client, path, tmp_path / "out.csv", silent)
        assert decisions(service) - before == remote.MOST_ROWS
        assert not (tmp_path / "out.csv").exists()
        proxy.fates.clear()
        told = remote.decide_file(client, path, tmp_path / "out.csv", silent)
    assert told.again == remote.MOST_ROWS
    assert decisions(service) - before == ROWS


def test_a_cell_that_is_no_number_is_missing_as_it_is_for_the_bundle(service: processes.Running, tmp_path: Path) -> None:
    path = rows(tmp_path, 5)
    text = path.read_text(encoding="utf-8").splitlines()
    at = text[0].split(",").index('"age"')
    cells = text[7].split(",")
    cells[at] = "old"
    path.write_text("\n".join([*text[:7], ",".join(cells), *text[8:]]), encoding="utf-8")
    with Client(service.url, patience=QUICK) as client:
        told = remote.decide_file(client, path, tmp_path / "out.csv", silent)
    assert "age: 'old' is no number; taken as missing (1 rows)" in told.notes


def test_a_row_that_is_refused_is_named_by_its_place_in_the_file(service: processes.Running, tmp_path: Path) -> None:
    table = bundles.table(ROWS, 6)[0].drop_columns(["amount"])
    pyarrow.csv.write_csv(table, tmp_path / "rows.csv")
    with (
        Client(service.url) as client,
        pytest.raises(ServiceError, match=r"^rows.csv, row 1: amount: got 'nothing'; expected a number or null"),
    ):
        remote.decide_file(client, tmp_path / "rows.csv", tmp_path / "out.csv", silent)


def test_outcomes_of_a_file_are_stored_once_and_the_others_told(service: processes.Running, tmp_path: Path) -> None:
    with Client(service.url, patience=QUICK) as client:
        made = client.decide([bundles.ROW] * 5)
        file = tmp_path / "late_outcomes.csv"
        good = "".join(f"{d.id},{'yes' if i else 'no'},,bureau\n" for i, d in enumerate(made))
        file.write_text(f"decision,outcome,known_at,source\n{good}nope,yes,,\n{made[0].id},maybe,,\n,yes,soon,\n", encoding="utf-8")
        assert remote.outcome_file(client, file, silent) == remote.Posted(5, 0, 3, tmp_path / "late_outcomes.refused.csv")
        assert remote.outcome_file(client, file, silent).there == 5
        refused = lines(tmp_path / "late_outcomes.refused.csv")
        assert [(line["row"], line["outcome"]) for line in refused] == [("6", "yes"), ("7", "maybe"), ("8", "yes")]
        assert refused[0]["why"].endswith("There is no decision nope here")
        assert refused[1]["why"].startswith("outcome: got 'maybe'; expected one of no, yes")
        file.write_text(f"decision,outcome\n{made[0].id},no\n", encoding="utf-8")
        assert remote.outcome_file(client, file, silent).refused == 1  # it said whence before: that is another content
        mended = tmp_path / "mended.csv"
        mended.write_text(f"decision,outcome,source,row,why\n{made[0].id},no,bureau,6,mended\n", encoding="utf-8")
        assert remote.outcome_file(client, mended, silent) == remote.Posted(0, 1, 0, None)
        assert client.decision(made[1].id)["outcomes"][0]["outcome"] == "yes"


def test_outcomes_are_not_doubled_though_answers_are_lost(service: processes.Running, tmp_path: Path) -> None:
    with misfortune.server(through(service), ["", "", "drop", "503:0"]) as proxy, Client(proxy.url, patience=QUICK) as client:
        made = client.decide([bundles.ROW] * 3)
        table = pa.table({"decision": [d.id for d in made], "outcome": ["yes", "no", "no"]})
        pyarrow.parquet.write_table(table, tmp_path / "late.parquet")
        posted = remote.outcome_file(client, tmp_path / "late.parquet", silent)
        assert (posted.stored, posted.there, posted.refused) == (0, 3, 0)  # stored by the try whose answer was lost
        assert remote.outcome(client, Outcome(made[0].id, "yes")).state == "there"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("decison,outcome\n1,yes\n", "late.csv: got 'no column decision'; expected the columns decision, outcome, known_at, source"),
        ("decision,outcome,note\n1,yes,a\n", "late.csv: got 'a column note'; expected the columns"),
        ("decision,outcome\n" + "1,yes\n" * 40 + "2\n", "late.csv: .*mend them: no outcome is left out"),
    ],
)
def test_a_file_of_outcomes_that_is_none(service: processes.Running, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "late.csv").write_text(text, encoding="utf-8")
    with Client(service.url) as client, pytest.raises(DataError, match=message):
        remote.outcome_file(client, tmp_path / "late.csv", silent)


def test_another_service_than_ours(tmp_path: Path) -> None:
    with (
        misfortune.server(lambda *_: (200, {}, b"{}")) as server,
        Client(server.url) as client,
        pytest.raises(CaseError, match="--url: got 'another service'; expected a service of `makegood serve`"),
    ):
        remote.decide_file(client, rows(tmp_path, 7), tmp_path / "out.csv", silent)


@pytest.mark.parametrize(("out", "message"), [("out.txt", "ends in .csv or .parquet"), ("no/out.csv", "a file in a folder that exists")])
def test_a_place_where_no_decisions_can_be_written(tmp_path: Path, out: str, message: str) -> None:
    with pytest.raises(CaseError, match=message):
        decision_file.check(tmp_path / out)


def test_every_other_call_of_the_client(service: processes.Running) -> None:
    with Client(service.url) as client:
        assert client.ready() is True
        name = client.models()["champion"]
        decision = client.decide(bundles.ROW)
        assert decision.model == name
        assert len(decision.reasons) == 2
        stored = client.outcome(decision, "yes", source="bureau")
        assert (stored.state, stored.said["outcome"]) == ("stored", "yes")
        assert client.correct(Outcome(decision, "no"), why="mixed up").state == "stored"
        assert client.override(decision, "decline", by="Ada", why="known here").state == "stored"
        told = client.decision(decision.id)
        assert (told["done"], [o["outcome"] for o in told["outcomes"]]) == ({"action": "decline"}, ["yes", "no"])
        assert client.promote(name, by="Ada")["changed"] is False
        for ask in (
            lambda: client.canary(name, 0.1),
            lambda: client.shadow(name),
            lambda: client.retire(name),
            lambda: client.rollback(name),
        ):
            with pytest.raises(ServiceError) as caught:
                ask()
            assert caught.value.status == 422
        with pytest.raises(ServiceError, match="There is no bundle 000000000000"):
            client.promote("000000000000")


def test_the_command_line(service: processes.Running, tmp_path: Path) -> None:
    def run(*words: object) -> tuple[int, dict[str, object], str]:
        done = subprocess.run(
            processes.command(*words), capture_output=True, text=True, timeout=60, env={**os.environ, "MAKEGOOD_KEY": "mg_x"}
        )
        return done.returncode, json.loads(done.stdout or "{}"), done.stderr

    rows(tmp_path, 8)
    code, said, _ = run("decide", "--url", service.url, tmp_path / "rows.csv", "--out", tmp_path / "out.csv", "--json")
    assert (code, said["n"], said["again"]) == (0, ROWS, 0)
    ids = [line["id"] for line in lines(tmp_path / "out.csv")]
    code, said, _ = run("outcome", ids[0], "no", "--url", service.url, "--json")
    assert (code, said["decision"], said["outcome"]) == (0, ids[0], "no")
    (tmp_path / "late.csv").write_text(f"decision,outcome\n{ids[1]},yes\n{ids[2]},perhaps\n", encoding="utf-8")
    code, said, _ = run("outcome", "--file", tmp_path / "late.csv", "--url", service.url, "--json")
    assert (code, said["stored"], said["refused"]) == (1, 1, 1)
    assert said["refusals"] == str((tmp_path / "late.refused.csv").resolve())
    code, _, err = run("decide", "loans", tmp_path / "rows.csv", "--url", service.url, "--out", tmp_path / "out.csv")
    assert (code, "got 'a case or bundle, and --url'" in err) == (2, True)
    code, _, err = run("outcome", ids[0], "--url", service.url)
    assert (code, "makegood outcome: got 'no VALUE'" in err) == (2, True)
