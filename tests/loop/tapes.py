"""Small tapes for the tests of the loop."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

from makegood.case import Case
from makegood.loop.retraining import learnt
from makegood.loop.tape import Tape, of_stream
from makegood.model import Model
from makegood.streams.kinds import stream


@lru_cache(maxsize=8)
def small(kind: str = "sudden", seed: int = 0, n: int = 1600, history: int = 1500, selective: bool = False) -> Tape:
    """Return a stream as a tape whose models are quickly made."""
    return quick(of_stream(stream(kind, seed, n=n, history=history, change=0.2, selective=selective)))


def quick(tape: Tape, **feedback: Any) -> Tape:
    """Return a tape whose case trains a linear model within a second, with other terms of its feedback."""
    case = tape.case
    train = case.train.model_copy(update={"families": ("linear",), "budget": 1.0})
    changed = case.feedback.model_copy(update=feedback)
    return replace(tape, case=case.model_copy(update={"train": train, "feedback": changed}))


@lru_cache(maxsize=8)
def first(tape: Tape) -> Model:
    """Return the model of a tape's history."""
    return learnt(tape.case, tape.history)


def declared(case: Case, **decision: Any) -> Case:
    """Return a case with other terms of its decision."""
    said = case.to_json()
    return Case.of({**said, "decision": {**said["decision"], **decision}})
