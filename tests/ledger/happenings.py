"""Decisions of every sort and what comes of them, drawn at random, as events for a ledger; and what a reader of events makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from makegood.ledger.events import Decided, Event, Happened, Overridden, Private, Shadow, encode, request_hash
from makegood.ledger.store import Ledger, Reader
from makegood.serving.history import History

CASE = "loans"
START = 1_750_000_000_000_000
STEP = 1_000_000
MENUS = (("approve", "refer", "decline"), ("approve", "decline"), ("decline", "defer", "approve"))
MODELS = ("loans@aaaaaaaaaaaa", "loans@bbbbbbbbbbbb", "loans@cccccccccccc")


@dataclass
class Story:
    """Events that follow from a seed, with a clock that goes on; `made` are the ids of the decisions so far."""

    ledger: Ledger
    seed: int
    at: int = START
    made: list[str] = field(default_factory=list)
    told: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.n = 0

    def tick(self) -> int:
        """Return a time: now and then two events share one, and now and then a clock goes back."""
        self.at += int(self.rng.choice([0, STEP, 3 * STEP, -STEP], p=[0.2, 0.4, 0.35, 0.05]))
        return self.at

    def decision(self) -> Event:
        """Return a decision: of either model, now and then by chance, with shadows, without inputs, about nobody."""
        rng = self.rng
        self.n += 1
        id = f"d{self.seed}.{self.n:05}"
        menu = MENUS[int(rng.integers(len(MENUS)))]
        place = int(rng.integers(len(menu)))
        share = float(rng.choice([1.0, 0.75, 0.25]))
        rest = (place + 1) % len(menu)
        chances = tuple(share if i == place else 1.0 - share if i == rest else 0.0 for i in range(len(menu)))
        body = Decided(
            action=menu[place],
            promise=int(rng.integers(-5_000_000, 5_000_000)),
            unit="EUR",
            propensity=share,
            options=menu,
            propensities=chances,
            predictive={"no": 0.8, "yes": 0.2},
            model=MODELS[int(rng.integers(2))],
            model_hash="1a" * 32,
            case_hash="2b" * 32,
            role="champion" if share == 1.0 else str(rng.choice(["champion", "canary"])),
            shadows=tuple(
                Shadow(MODELS[m], str(rng.choice(["approve", "audit"])), int(rng.integers(100))) for m in (1, 2) if rng.random() < 0.3
            ),
            inputs_mac="ff" if rng.random() < 0.05 else "",
        )
        private = None if rng.random() < 0.05 else encode(Private(self.inputs(), (("amount", "5", 1.0),)))
        unit = self.ledger.pseudonym(f"u{rng.integers(12)}") if rng.random() < 0.8 else ""
        self.made.append(id)
        return Event(id, "decision", CASE, "", unit, self.tick(), request_hash(id.encode()), encode(body), private)

    def inputs(self) -> dict[str, Any]:
        """Return a row of values of every type, some of them missing, and one column that changes its type."""
        rng = self.rng
        odd = rng.choice(5)
        row: dict[str, Any] = {
            "amount": float(rng.integers(100)) / 4,
            "months": int(rng.integers(60)),
            "city": str(rng.choice(["Ulm", "東京", "Île"])),
            "employed": bool(rng.random() < 0.5),
            "odd": [7, 7.5, "seven", True, 2**60][odd] if self.n > 40 else 7,
            "late": None if self.n < 60 else "here",
            "never": None,
        }
        return {name: None if rng.random() < 0.1 else value for name, value in row.items() if rng.random() < 0.95}

    def said(self) -> Event | None:
        """Return an outcome, a correction or an override of some decision; None where there is none to tell of."""
        rng = self.rng
        if not self.made:
            return None
        about = self.made[int(rng.integers(len(self.made)))]
        self.n += 1
        kind = "override" if rng.random() < 0.2 else "correction" if about in self.told else "outcome"
        self.told |= {about} if kind == "outcome" else set()
        at = self.tick()
        if kind == "override":
            body: Happened | Overridden = Overridden(str(rng.choice(["decline", "waive"])), "a clerk", at)
        else:
            realised = None if rng.random() < 0.2 else int(rng.integers(-9_000_000, 9_000_000))
            body = Happened(str(rng.choice(["no", "yes"])), at - 5 * STEP, "core", realised, "EUR", "typo" if kind == "correction" else "")
        id = f"s{self.seed}.{self.n:05}"
        return Event(id, kind, CASE, about, "", at, request_hash(id.encode()), encode(body))

    def go_on(self, n: int, others: Sequence[Ledger] = ()) -> None:
        """Write about n events more; to one of `others` as well, if there are any, which are other partitions of the ledger."""
        homes: list[tuple[Ledger, list[Event]]] = [(home, []) for home in (self.ledger, *others)]
        for _ in range(n):
            event = self.decision() if self.rng.random() < 0.5 else self.said()
            if event is not None:
                homes[int(self.rng.integers(len(homes)))][1].append(event)
        for home, events in homes:
            home.append(events)


def histories(reader: Reader, now: int, case: str = CASE) -> list[History]:
    """Return the decisions of a case that were made by now, in order, each with what was said of it by now."""
    stored = [one for batch in reader.scan(kinds=("decision",), case=case) for one in batch if one.event.at <= now]
    stored.sort(key=lambda one: (one.event.at, one.partition, one.seq))
    return [History.of(one, [later for later in reader.about(one.event.id) if later.event.at <= now]) for one in stored]


def words(history: History) -> tuple[tuple[Event, Happened] | None, tuple[Event, Happened] | None]:
    """Return the first and the last word on a decision's outcome: a correction outweighs an outcome that came in later."""
    happened = list(history.happened)
    corrections = [one for one in happened if one[0].kind == "correction"]
    last = corrections[-1] if corrections else happened[-1] if happened else None
    return (happened[0] if happened else None), last
