"""The closed loop on a column of texts: decided, told, reviewed and learnt from anew, as with any other column."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.queues import CASE, requests

from makegood.case import Case
from makegood.loop.running import Options, loop
from makegood.report.looped import ARM


@pytest.mark.slow
def test_texts_go_through_the_closed_loop(tmp_path: Path) -> None:
    text = CASE.replace("outcome: queue", "outcome: queue, time: asked_at").replace("budget: 30s", "budget: 2s")
    case = Case.parse(text + "feedback: {review: 7d, tolerance: 0.3}\n")
    done = loop(case, data=requests(560, timed=True), workspace=tmp_path, options=Options(served=False, compare=False))
    told = done.to_json()
    assert told["decisions"] == 336
    assert told["money"][ARM]["low"] > 0.5 * 336  # what one queue for all would earn
    assert {event["kind"] for event in told["events"]} >= {"retrained"}
