"""The prepare stage: a case's rows, understood before anything is trained."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from makegood.case import Case
from makegood.contracts import Finding, Ints, Splits
from makegood.data import galleries, identity, images, leaks, outcome, profile, sources, splits
from makegood.data import prepare as preparation
from makegood.data.transform import Transform
from makegood.economics import policy as policies
from makegood.economics.payoff import Payoffs
from makegood.economics.policy import Policy
from makegood.errors import CaseError, Problem


@dataclass(frozen=True)
class Prepared:
    """A case's rows, understood: what they are, what is to be predicted, what pays, and which rows are held out."""

    case: Case
    source: sources.Source
    profile: profile.Profile
    outcome: outcome.Outcome
    policy: Policy  # payoffs and limits; prices and promises come with training
    excluded: tuple[str, ...]
    findings: tuple[Finding, ...]
    splits: Splits

    @property
    def table(self) -> pa.Table:
        """All rows, those without a known outcome too."""
        return self.source.table

    @cached_property
    def known(self) -> Ints:
        """Positions of the rows whose outcome is known."""
        return np.flatnonzero(self.outcome.known)

    @property
    def split(self) -> dict[str, Any]:
        """The split, for people: method, sizes, hash."""
        s = self.splits
        return {
            "method": s.method,
            "folds": len(s.folds),
            "train": len(s.folds[0].train),
            "test": sum(len(f.test) for f in s.folds),
            "purged": s.purged,
            "seed": s.seed,
            "hash": s.hash,
            "detail": s.detail,
        }

    def transform(self, rows: Ints) -> Transform:
        """Return the preparation fitted on these rows alone; payoffs and protected columns are read beside the features."""
        extra = {*self.policy.names, *self.case.data.protected}
        return preparation.fit(self.table, self.profile, self.excluded, rows=rows, extra=extra)

    def today(self, rows: Ints) -> str | Ints | None:
        """Return what is done today: an option's name, or the option of each of the rows; None when the case does not say."""
        name, payoffs = self.case.decision.today, self.policy.payoffs
        if name is None or name in {o.name for o in payoffs.options} or name not in self.table.column_names:
            return name
        return payoffs.positions(self.table[name].take(pa.array(rows)).to_pylist())

    def to_json(self) -> dict[str, Any]:
        """Return plain data for the run's folder."""
        return {
            "source": {"name": self.source.name, "fingerprint": self.source.fingerprint, "rows": self.source.in_file},
            "outcome": asdict(self.outcome.task),
            "columns": [{"name": f.name, "kind": f.kind, "missing": f.n_missing, "distinct": f.n_unique} for f in self.profile.fields],
            "findings": [asdict(f) for f in self.findings],
            "split": self.split,
        }


def prepare_rows(case: Case, data: Any = None, cache: Path | None = None) -> Prepared:
    """Return the case's rows, read, profiled, searched for leaks and split; raises `CaseError` or `DataError`.

    `data` is a table, or a file's path, in place of `data.source`; what is fetched from an address is kept in `cache`.
    """
    if data is None and not case.data.source:
        raise CaseError(Problem("data.source", "nothing", "a file, builtin:NAME, or a table passed as data=", "name one"))
    source, replaced = _read(case, data, cache)
    table, treated = images.decoded(source.table, case.data.image.size, case.data.image.channels)
    table, repeated = identity.deduplicate(galleries.named(table, case.data.outcome), apart=case.data.holdout)
    source = replace(source, table=table)
    columns = profile.profile(table, case.data)
    target = outcome.type_outcome(table, case)
    if case.coverage is not None and target.task.kind != "classes":
        where = "serve.coverage" if case.decision.averse is None else "decision.averse"
        mend = "remove it: a decision on a number comes with quantiles"
        raise CaseError(Problem(where, "an outcome that is a number", "an outcome of classes, which prediction sets are made of", mend))
    payoffs = Payoffs.of(outcome.payoffs_by_class(case, target.task.classes), case.decision.unit, target.task.classes)
    averse = case.decision.averse is not None
    policy = Policy.fit(payoffs, declared_limits(case), np.zeros((0, len(payoffs.options))), {}, averse=averse)
    if case.data.outcome in policy.names:
        mend = "payoffs call what turns out `outcome`, whatever its column"
        raise CaseError(Problem("decision", case.data.outcome, "the word outcome", mend))
    policy.check({name: kind for name, kind in columns.kinds.items() if name != case.data.outcome})
    found = leaks.find(table, columns, target, case.data)
    excluded, roles = preparation.unused(columns, found, case.data)
    as_read = (*replaced, *source.findings, *treated, *repeated)
    findings = (*found, *_reserved(table, case), *roles, *target.findings, *as_read, *columns.findings)
    parts = splits.make(target, case, table, seed=case.train.seed)
    prepared = Prepared(case, source, columns, target, policy, excluded, findings, parts)
    _check_money(prepared)
    return prepared


def _read(case: Case, data: Any, cache: Path | None) -> tuple[sources.Source, tuple[Finding, ...]]:
    """Return the rows, and a finding where a file is read in place of the case's own."""
    path = case.data.path
    if data is None:
        return sources.read(case.data.source, folder=case.folder, path=path, sha256=case.data.sha256, cache=cache), ()
    if not isinstance(data, str | Path):
        return sources.read(data, folder=case.folder, path=path), ()
    source = sources.read(data, path=path)  # from where the user stands, not from where the case lies
    detail = f"The rows were read from {source.name!r}, in place of the case's own source."
    return source, (Finding("source", "", source.in_file, detail, "kept"),)


def declared_limits(case: Case) -> dict[str, dict[str, Any]]:
    """Return the case's limits as plain data, as `Policy.fit` takes them."""
    return {name: limit.model_dump() for name, limit in case.decision.limits.items()}


def _reserved(table: pa.Table, case: Case) -> tuple[Finding, ...]:
    """Return a warning for each column that a payoff cannot name, since the word has a meaning of its own."""
    why = "Payoffs cannot use the column {!r}: there the word means something else."
    names = [n for n in ("outcome", "action", "quantity") if n in table.column_names and n != case.data.outcome]
    return tuple(Finding("reserved", n, table.num_rows, why.format(n), "kept", "warning") for n in names)


def _check_money(prepared: Prepared) -> None:
    """Raise where a payoff has no value on some row, or `today` is neither an action nor a column: before any training."""
    rows = prepared.known
    columns, _ = prepared.transform(rows).read(preparation.raw_columns(prepared.table.take(pa.array(rows))))
    payoffs = prepared.policy.payoffs
    used = {name: columns[name] for name in prepared.policy.names}
    anchor = used or {"": np.zeros(len(rows))}
    if prepared.outcome.task.kind == "classes":
        payoffs.table(anchor)
    else:
        payoffs.at(anchor, prepared.outcome.values[rows])
    today = prepared.today(rows)
    policies.baseline_weights(replace(prepared.policy, limits=(), prices=()), len(rows), used, np.zeros(len(payoffs.options)), today)
