"""The whole loop of a case: from its table to the page, by a real service, and beside one that runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from tests.loop.tapes import quick, small
from tests.loops import LOANS, loans

from makegood import Client, pipeline
from makegood.case import Case
from makegood.errors import NotBuilt, Refused
from makegood.loop.house import Turn
from makegood.loop.running import Live, Options, live, loop, of_tape
from makegood.loop.served import begins, replaying
from makegood.report.looped import ARM
from makegood.serving.locate import Replay, locate


@pytest.mark.parametrize("served", [True, False])
def test_a_loop_ends_with_the_money_of_each_arm_and_a_page(served: bool, tmp_path: Path) -> None:
    tape = quick(small(n=700, history=5000), review=35 * 86400.0)
    shares: list[float] = []
    done = of_tape(tape, workspace=tmp_path, options=Options(served=served), progress=lambda what, share: shares.append(share))
    said = json.loads(json.dumps(done.to_json()))
    assert {"case", "money", "alarms", "retrained", "promoted", "report"} <= said.keys()
    assert set(said["money"]) == {ARM, "never", "scheduled", "oracle"}
    assert said["decisions"] == 700
    page = Path(said["report"]).read_text(encoding="utf-8")
    assert "Simulated: " in page
    assert [path.name for path in tmp_path.iterdir()] == ["loans-sudden"]
    assert [path.name for path in (tmp_path / "loans-sudden").iterdir()] == ["loops"], "nobody is served by the models of a replay"
    assert shares[0] == 0.0
    assert (Path(said["report"]).parent / "replay.sqlite").exists() == served


def test_a_real_table_is_looped_with_drift_that_its_page_tells_of(tmp_path: Path) -> None:
    case = Case.parse(LOANS.replace("train:", "feedback: {review: 3d, tolerance: 20}\ntrain:"))
    done = loop(case, data=pa.Table.from_pandas(loans(3500)), workspace=tmp_path, options=Options(served=False, compare=False))
    assert set(done.looping.money) == {ARM}
    assert done.looping.injected.startswith("The rows have no time")
    assert "injected" in done.page.read_text(encoding="utf-8").lower()
    assert done.to_json()["injected"] == done.looping.injected


def test_a_first_model_that_is_worth_nothing_begins_no_loop(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="the first model: got 'verdict refuse'"):
        of_tape(small(n=700), workspace=tmp_path, options=Options(served=False))


def test_images_in_files_are_refused_by_name(tmp_path: Path) -> None:
    case = Case.parse(LOANS.replace("outcome: bad", "outcome: bad, path: sex"))
    with pytest.raises(NotBuilt, match="images"):
        loop(case, data=pa.Table.from_pandas(loans(300)), workspace=tmp_path)


def test_the_same_loop_runs_beside_a_service(tmp_path: Path) -> None:
    tape = small()
    run = pipeline.run(tape.case, data=tape.history, workspace=tmp_path, until="bundle")
    ledger = f"sqlite:///{(tmp_path / 'replay.sqlite').resolve()}"
    place = replace(locate(str(run.bundle), tmp_path), replay=Replay(ledger))
    seen: list[Turn] = []
    waits: list[float] = []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        return len(waits) < 2

    with replaying(place, begins(tape)) as url, Client(url, timeout_s=60.0) as client:
        rows = tape.rows.slice(0, 200).drop_columns(["applied_at"]).to_pylist()
        client.decide([{k: v for k, v in row.items() if v is not None} for row in rows], id="first")
        about = Live(client, tape.case, tape.history, wait)
        memory = live(str(run.bundle), about, workspace=tmp_path, ledger=ledger, told=seen.append)
    assert waits == [14 * 86400.0] * 2
    assert [t.review.n for t in seen] == [200, 200]
    assert memory.were == (seen[0].review.model,)
