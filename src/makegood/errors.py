"""The tree of exceptions.

MakegoodError
├── CaseError     the case file (or the call) is wrong: exit code 2
├── DataError     the data are wrong: exit code 2
├── BundleError   a bundle is damaged, forged or not ours: exit code 2
├── LedgerError   the ledger is away, in use, full, damaged or of another version: exit code 2
├── ServiceError  a service refuses a request, or does not answer: exit code 2
├── MissingExtra  an optional package is not installed: exit code 2
├── NotBuilt      asked for by name, planned, not there yet: exit code 2
└── Refused       the input is right, and the answer is no: exit code 1

Everything else that escapes is our fault (exit code 3). A message says where, what it got, what was expected and what to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, in the four parts that a mend needs.

    >>> print(Problem("decision.today", "aprove", "one of approve, decline", "write approve"))
    decision.today: got 'aprove'; expected one of approve, decline; write approve
    """

    where: str
    got: str
    expected: str
    next: str = ""
    severity: str = "error"  # "error" stops the work, "warning" does not

    def __str__(self) -> str:
        head = f"{self.where}: got {self.got!r}" if self.got else self.where
        tail = f"; {self.next}" if self.next else ""
        return f"{head}; expected {self.expected}{tail}"


class MakegoodError(Exception):
    """An error that tells its reader what to do.

    `problems` holds every finding; the message joins them, one a line.
    """

    def __init__(self, *problems: Problem | str) -> None:
        super().__init__(*problems)  # Exception pickles its args, so errors survive a process boundary
        self.problems = tuple(p if isinstance(p, Problem) else Problem("", "", p) for p in problems)

    def __str__(self) -> str:
        return "\n".join(str(p) for p in self.args)


class CaseError(MakegoodError):
    """The case, or a call's argument, is wrong."""


class DataError(MakegoodError):
    """The data are wrong."""


class BundleError(MakegoodError):
    """A bundle is damaged, forged, or of another version."""


class LedgerError(MakegoodError):
    """The ledger cannot be written or read: away, in use, full, damaged, or of another version."""


class ServiceError(MakegoodError):
    """A service refuses a request, with this HTTP status, or does not answer (status 0)."""

    status = 0


class MissingExtra(MakegoodError):
    """An optional package is not installed."""


class NotBuilt(MakegoodError):
    """A planned ability that this version does not have (see ROADMAP.md)."""


class Refused(MakegoodError):
    """The input is right and the answer is no: the data or the model is not good enough."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return ``did you mean 'x'?`` for the closest allowed name, or an empty string.

    >>> nearest("amuont", ["amount", "age"])
    "did you mean 'amount'?"
    >>> nearest("zzz", ["amount", "age"])
    ''
    """
    close = get_close_matches(name, list(allowed), n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else ""
