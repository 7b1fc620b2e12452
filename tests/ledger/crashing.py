"""Processes that write to one ledger and are killed: what they acknowledged must be there, once, as it was sent.

    python -m tests.ledger.crashing URL '{"kills": 1000, "seconds": 90}'

Every event follows from its writer's thread and a number, so that what is found can be compared with what must have been sent. A
process that has everything imported and no ledger open forks the writers: each opens the ledger, looks for all that was acknowledged
since the last look, and goes on from there, repeating under the same ids what was sent and never acknowledged. What it acknowledges goes
into a pipe from the very call that says that it is durable.
"""

from __future__ import annotations

import json
import os
import random
import selectors
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, TypeVar

import sqlalchemy as sa
from tests.ledger import faults

from makegood.errors import LedgerError
from makegood.ledger.events import Decided, Event, Happened, Private, Receipt, encode, request_hash
from makegood.ledger.store import Ledger, Reader
from makegood.ledger.verify import verify

THREADS = 6
OPENING_S = 5.0
T = TypeVar("T")
START = 1_750_000_000_000_000
Turn = tuple[int, int]
"""A thread, over all writers, and the number of what it submits."""


@dataclass(frozen=True)
class Plan:
    """What is to be done: this many kills, or as many as fit into the seconds.

    `writers` write at once, each into a partition of its own. A writer lives up to `life_s`, at random, and each of its
    threads rests for `pause_s` after each submission. With `power` an end is a power cut: unsynced writes are lost, with `survive` not
    all of them; with `lies` the disk syncs nothing.
    """

    kills: int
    seconds: float
    writers: int = 1
    life_s: float = 0.06
    pause_s: float = 0.0
    power: bool = False
    survive: bool = False
    lies: bool = False
    seed: int = 1


@dataclass
class Figures:
    """What was found; times are those from a writer's start to its open ledger."""

    kills: int = 0
    cuts: int = 0  # by the disk itself, in the middle of its work
    before_open: int = 0  # of the kills
    acknowledged: int = 0  # events
    repeated: int = 0  # submissions that were stored and had not been acknowledged
    recovered: int = 0  # writers that wrote again after a refusal
    events: int = 0
    lost: int = 0
    changed: int = 0
    doubled: int = 0
    torn: int = 0  # submissions of which only a part is there
    unasked: int = 0  # events that nobody sent
    chain: bool = False
    worst_open_s: float = 0.0
    median_open_s: float = 0.0
    seconds: float = 0.0
    failures: dict[str, int] = field(default_factory=dict)  # what was refused, and how often
    errors: list[str] = field(default_factory=list)


@lru_cache(4096)
def sent(thread: int, n: int) -> tuple[Event, ...]:
    """Return what a thread submits as its n-th: one to three decisions, then the outcomes of these."""
    group = n // 2
    size = 1 + (group * 7 + thread) % 3
    at = START + n * 1000 + thread
    out = []
    for i in range(size):
        id = f"{thread}-{group}.{i}"
        if n % 2:
            happened = encode(Happened("no" if i else "yes", at, "core banking", -1_000 * group, "EUR"))
            out.append(Event(f"outcome:{id}", "outcome", "credit-risk", id, "", at, request_hash(id.encode(), b"o"), happened))
            continue
        decided = Decided("approve", group, "EUR", 1.0, ("approve", "decline"), (1.0, 0.0), {"no": 0.9, "yes": 0.1}, "m", "1a", "2b")
        said = encode(Private({"amount": group, "thread": thread}, (("amount", str(group), -12.5),)))
        unit = f"{thread * 1000 + group % 50:032x}"
        out.append(Event(id, "decision", "credit-risk", "", unit, at, request_hash(id.encode()), encode(decided), said))
    return tuple(out)


def turn(id: str) -> Turn | None:
    """Return whose submission an event's id is of, None where it is nobody's."""
    decision = id.removeprefix("outcome:")
    try:
        thread, group = (int(part) for part in decision.split(".")[0].split("-"))
    except ValueError:
        return None
    return thread, 2 * group + (decision != id)


def audit(url: str, acknowledged: dict[int, int], figures: Figures) -> None:
    """Read a whole ledger and add what is wrong to the figures; `acknowledged` has each thread's next number."""
    seen: Counter[str] = Counter()
    parts: Counter[Turn] = Counter()
    try:
        reader = Reader.open(url)
    except LedgerError as error:
        figures.errors.append(str(error))
        figures.lost += sum(len(sent(thread, k)) for thread, n in acknowledged.items() for k in range(n))
        return
    for batch in reader.scan():
        for stored in batch:
            event, whose = stored.event, turn(stored.event.id)
            seen[event.id] += 1
            wanted = next((e for e in sent(*whose) if e.id == event.id), None) if whose else None
            if whose is None or wanted is None or whose[1] > acknowledged.get(whose[0], 0):
                figures.unasked += 1
                continue
            figures.changed += event != wanted
            parts[whose] += 1
    reader.close()
    figures.events = sum(seen.values())
    figures.doubled += sum(n - 1 for n in seen.values())
    figures.torn += sum(n != len(sent(*whose)) for whose, n in parts.items())
    figures.lost += sum(event.id not in seen for thread, n in acknowledged.items() for k in range(n) for event in sent(thread, k))
    found = verify(url)
    figures.chain = found.ok
    figures.errors += [str(problem) for problem in found.findings[:5] if problem.severity == "error"]


# ---------------------------------------------------------------------------------------------------------------- a writer


@dataclass
class _Writer:
    """What a writer does in its process; what it says is one line a time."""

    url: str
    pipe: int
    started: float
    pause_s: float

    def say(self, *words: object) -> None:
        """Write a line into the pipe: less than a page, so that it is there whole or not at all."""
        os.write(self.pipe, f"{' '.join(map(str, words))}\n"[:400].encode())

    def run(self, turns: dict[int, int], unseen: list[Turn]) -> None:
        """Open the ledger, look for what must be there, and write until the end."""
        ledger = self._patiently(lambda: Ledger.open(self.url))
        self.say("open", time.monotonic() - self.started)
        wanted = {event.id: event for whose in unseen for event in sent(*whose)}
        there = self._patiently(lambda: ledger.reader.events(list(wanted)))
        lost, changed = len(wanted.keys() - there.keys()), sum(there[id].event != wanted[id] for id in wanted.keys() & there.keys())
        self.say("looked", lost, changed)
        threads = [threading.Thread(target=self._submit, args=(ledger, *first), daemon=True) for first in turns.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ledger.close()

    def _patiently(self, do: Callable[[], T]) -> T:
        """Return what comes of this once it works; a server may be away."""
        while True:
            try:
                return do()
            except LedgerError as error:
                self.say("failed", "-", "-", str(error).replace("\n", " "))
                time.sleep(0.02)

    def _submit(self, ledger: Ledger, thread: int, n: int) -> None:
        again = True
        while True:
            answer: list[list[Receipt] | LedgerError] = []
            over = threading.Event()

            def done(receipts: list[Receipt] | LedgerError, n: int = n, answer: Any = answer, over: Any = over) -> None:
                if not isinstance(receipts, LedgerError):
                    self.say("done", thread, n, *{receipt.state for receipt in receipts})
                answer.append(receipts)
                over.set()

            try:
                ledger.submit(sent(thread, n), done)
                over.wait()
            except LedgerError as error:
                answer.append(error)
            if isinstance(answer[0], LedgerError):
                self.say("failed", thread, n, str(answer[0]).replace("\n", " "))
                again = True
                time.sleep(0.02)
                continue
            states = {receipt.state for receipt in answer[0]}
            if len(states) != 1 or not states <= ({"new", "same"} if again else {"new"}):
                self.say("wrong", thread, n, f"its receipts are {sorted(states)}")
            again, n = False, n + 1
            time.sleep(self.pause_s)


# ------------------------------------------------------------------------------------------------------------- the parent


class Siege:
    """Writers that are started and killed in turn, and what they acknowledged."""

    def __init__(self, url: str, plan: Plan) -> None:
        self.url, self.plan, self.figures = url, plan, Figures()
        self.acknowledged = dict.fromkeys(range(THREADS * plan.writers), 0)
        self.failures: Counter[str] = Counter()
        self._unseen: list[Turn] = []
        self._pick = random.Random(plan.seed)
        self._opens: list[float] = []
        self._live: dict[int, tuple[int, int]] = {}  # slot: process, pipe
        self._rest: dict[int, bytes] = {}  # of a line, by pipe
        self._failing: set[int] = set()  # pipes of those whose last submission was refused
        self._opened: set[int] = set()  # pipes of those that came so far
        self._looking: dict[int, list[Turn]] = {}  # what a writer was told to look for, by pipe

    def run(self) -> Figures:
        """Do what is planned, then read everything."""
        start = time.monotonic()
        figures, plan = self.figures, self.plan
        while figures.kills < plan.kills and time.monotonic() - start < plan.seconds:
            for slot in range(plan.writers):
                if slot not in self._live:
                    self._fork(slot)
            victim = self._pick.randrange(plan.writers)
            if self._pick.random() < 0.8:  # the others die while they open
                self._listen(OPENING_S, until=self._live[victim][1])
            self._listen(self._pick.uniform(0, plan.life_s))
            self._kill(victim)
        for slot in list(self._live):
            self._kill(slot)
        figures.seconds = round(time.monotonic() - start, 1)
        figures.worst_open_s = round(max(self._opens, default=0.0), 4)
        figures.median_open_s = round(sorted(self._opens)[len(self._opens) // 2], 4) if self._opens else 0.0
        figures.failures = dict(self.failures.most_common(5))
        audit(self.url, self.acknowledged, figures)
        return figures

    def _fork(self, slot: int) -> None:
        plan = self.plan
        mine = {t: n for t, n in self.acknowledged.items() if t // THREADS == slot}
        looking = [whose for whose in self._unseen if whose[0] // THREADS == slot]
        cut_at = self._pick.randrange(1, self._pick.choice((80, 250, 1000)))  # the last are enough for a checkpoint
        read, write = os.pipe()
        started = time.monotonic()
        pid = os.fork()
        if pid == 0:
            try:
                if plan.power:
                    faults.Disk(plan.seed + self.figures.kills, cut_at=cut_at, survive=plan.survive, lies=plan.lies).install()
                _Writer(self.url, write, started, plan.pause_s).run(mine, looking)
            finally:
                if sys.exc_info()[0]:
                    traceback.print_exc()
                os._exit(1)
        os.close(write)
        self._live[slot] = pid, read
        self._looking[read] = looking

    def _listen(self, seconds: float, until: int = -1) -> None:
        """Take what writers say, until the time is over, one of them is gone, or the one at the pipe `until` has opened the ledger."""
        end = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            for _, pipe in self._live.values():
                selector.register(pipe, selectors.EVENT_READ)
            while (left := end - time.monotonic()) > 0 and until not in self._opened:
                for key, _ in selector.select(left):
                    if not self._take(key.fd):
                        return

    def _kill(self, slot: int) -> None:
        """End a writer, and take the last that it said."""
        pid, pipe = self._live.pop(slot)
        self.figures.cuts += os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        os.kill(pid, signal.SIGKILL)
        while self._take(pipe):
            pass
        os.close(pipe)
        _, status = os.waitpid(pid, 0)
        self.figures.kills += 1
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            self.figures.errors.append(f"a writer ended by itself with status {status}: {dict(self.failures)}")
        self.figures.before_open += pipe not in self._opened
        self._opened.discard(pipe)
        self._failing.discard(pipe)

    def _take(self, pipe: int) -> bool:
        """Take what a writer said; False once it is gone."""
        said = os.read(pipe, 65536)
        lines = (self._rest.pop(pipe, b"") + said).decode().split("\n")
        self._rest[pipe] = lines.pop().encode()
        for line in lines:
            self._heard(pipe, line.split(" ", 3))
        return bool(said)

    def _heard(self, pipe: int, words: list[str]) -> None:
        figures = self.figures
        match words:
            case ["open", seconds]:
                self._opens.append(float(seconds))
                self._opened.add(pipe)
            case ["looked", lost, changed]:
                figures.lost, figures.changed = figures.lost + int(lost), figures.changed + int(changed)
                gone = set(self._looking[pipe])
                self._unseen = [whose for whose in self._unseen if whose not in gone]
            case ["done", thread, n, state]:
                whose = int(thread), int(n)
                self.acknowledged[whose[0]] = whose[1] + 1
                self._unseen.append(whose)
                figures.acknowledged += len(sent(*whose))
                figures.repeated += state == "same"
                figures.recovered += pipe in self._failing
                self._failing.discard(pipe)
            case ["failed", _, _, why]:
                self.failures[why] += 1
                self._failing.add(pipe)
            case _:
                figures.errors.append(" ".join(words))


def main() -> None:
    """Do what the arguments say, and write the figures as JSON."""
    sa.make_url(sys.argv[1]).get_dialect().import_dbapi()  # before any writer is started
    figures = Siege(sys.argv[1], Plan(**json.loads(sys.argv[2]))).run()
    sys.stdout.write(json.dumps(asdict(figures)) + "\n")


if __name__ == "__main__":
    main()
