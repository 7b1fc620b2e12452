"""The prepare stage: a case's rows, understood before anything is trained."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from makegood.case import Case
from makegood.contracts import Columns, Finding, Ints, Splits
from makegood.data import familiarity, galleries, identity, images, leaks, outcome, profile, sources, splits
from makegood.data import prepare as preparation
from makegood.data.alike import ALIKE
from makegood.data.transform import Transform
from makegood.economics import policy as policies
from makegood.economics.payoff import Payoffs
from makegood.economics.policy import Policy
from makegood.errors import CaseError, NotBuilt, Problem
from makegood.families.vocabulary import tokenizer_of
from makegood.stages.metrics import ranks_of


@dataclass(frozen=True)
class Prepared:
    """A case's rows, understood: what they are, what is to be predicted, what pays, and which rows are held out.

    `whole` is the preparation fitted on all rows whose outcome is known; `wording` says how each reads texts.
    """

    case: Case
    source: sources.Source
    profile: profile.Profile
    outcome: outcome.Outcome
    policy: Policy  # payoffs and limits; prices and promises come with training
    excluded: tuple[str, ...]
    findings: tuple[Finding, ...]
    splits: Splits
    whole: Transform
    wording: preparation.Wording

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
        if np.array_equal(rows, self.known):
            return self.whole
        extra = _read_beside(self.case, self.policy)
        return preparation.fit(self.table, self.profile, self.excluded, rows=rows, extra=extra, wording=self.wording)

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
    if any(finding.kind == "unsupported" and finding.column == case.data.outcome for finding in source.findings):
        expected = "one outcome a row: several labels a row are not built yet"
        raise NotBuilt(Problem(f"data.outcome: {case.data.outcome!r}", "lists or records", expected, "predict one label; see ROADMAP.md"))
    table, treated = images.decoded(source.table, case.data.image.size, case.data.image.channels)
    if case.data.text is not None:
        table, worded = preparation.mended(table, case.data.text.column)
        treated += worded
    table, repeated = identity.deduplicate(galleries.named(table, case.data.outcome), apart=case.data.holdout)
    source = replace(source, table=table)
    columns = profile.profile(table, case.data)
    target = outcome.type_outcome(table, case)
    if case.coverage is not None and target.task.kind != "classes":
        where = "serve.coverage" if case.decision.averse is None else "decision.averse"
        mend = "remove it: a decision on a number comes with quantiles"
        raise CaseError(Problem(where, "an outcome that is a number", "an outcome of classes, which prediction sets are made of", mend))
    _check_ratings(case, target.task.classes, columns.kinds)
    payoffs = Payoffs.of(outcome.payoffs_by_class(case, target.task.classes), case.decision.unit, target.task.classes)
    averse = case.decision.averse is not None
    policy = Policy.fit(payoffs, declared_limits(case), np.zeros((0, len(payoffs.options))), {}, averse=averse)
    if case.data.outcome in policy.names:
        mend = "payoffs call what turns out `outcome`, whatever its column"
        raise CaseError(Problem("decision", case.data.outcome, "the word outcome", mend))
    familiar = _asks_familiarity(case, policy, columns.names)
    kinds = {name: kind for name, kind in columns.kinds.items() if name != case.data.outcome}
    policy.check(kinds if case.data.text is None else kinds | {familiarity.NAME: "number"})
    found = leaks.find(table, columns, target, case.data)
    excluded, roles = preparation.unused(columns, found, case.data)
    as_read = (*replaced, *source.findings, *treated, *repeated)
    findings = (*found, *_reserved(table, case), *roles, *target.findings, *as_read, *columns.findings)
    parts = splits.make(target, case, table, seed=case.train.seed)
    findings += _repeated(case, parts)
    wording, known = _wording(case, familiar), np.flatnonzero(target.known)
    whole = preparation.fit(table, columns, excluded, rows=known, extra=_read_beside(case, policy), wording=wording)
    read, notes = whole.read(preparation.raw_columns(table.take(pa.array(known))))
    for note in notes:
        if note.kind == "text cut":
            findings += preparation.shortened(note.column, len(note.rows))
    prepared = Prepared(case, source, columns, target, policy, excluded, findings, parts, whole, wording)
    _check_money(prepared, read)
    return prepared


def _check_ratings(case: Case, classes: tuple[str, ...], kinds: Mapping[str, str]) -> None:
    """Raise `CaseError` where the case has scales and its outcome has no ranks, or a rater's marks are no numbers."""
    scale, raters = case.data.scale, case.data.raters
    if scale is not None and ranks_of(classes) is None:
        got = "an outcome that is a number" if not classes else f"the classes {', '.join(classes[:6])}"
        mend = "write data.type: classes, or remove data.scale"
        raise CaseError(Problem(f"data.scale: {scale!r}", got, "three or more classes that are whole numbers", mend))
    if wrong := [name for name in raters if kinds[name] not in ("number", "boolean")]:
        raise CaseError(Problem(f"data.raters: {wrong[0]!r}", f"a {kinds[wrong[0]]} column", "marks that are numbers", "clean the column"))


def _repeated(case: Case, parts: Splits) -> tuple[Finding, ...]:
    """Return the finding that texts nearly repeat others; none where none does."""
    if not parts.repeated or case.data.text is None:
        return ()
    name = case.data.text.column
    detail = f"{parts.repeated} rows have a text in {name!r} that nearly repeats one of a test (Jaccard similarity of at least {ALIKE} "
    detail += "between their runs of five characters): they were not learnt from where that is tested on."
    return (Finding("similar", name, parts.repeated, detail, "dropped", "warning"),)


def _read_beside(case: Case, policy: Policy) -> set[str]:
    """Return the columns that are read whether they make features or not."""
    scale = () if case.data.scale is None else (case.data.scale,)
    named = policy.names if case.data.text is None else policy.names - {familiarity.NAME}
    return {*named, *case.data.protected, *scale}


def _asks_familiarity(case: Case, policy: Policy, names: Collection[str]) -> bool:
    """Return whether payoffs or limits ask how familiar a text is; raises `CaseError` where there is none, or a column of that name."""
    if familiarity.NAME not in policy.names:
        return False
    where, expected = f"decision: {familiarity.NAME}", "how like the texts that were learnt from a text is"
    if familiarity.NAME in names:
        raise CaseError(Problem(where, f"a column {familiarity.NAME!r} in the data", expected, "rename the column"))
    if case.data.text is None:
        raise CaseError(Problem(where, "no data.text", expected, "name the column of texts in data.text"))
    return True


def _wording(case: Case, familiar: bool) -> preparation.Wording:
    """Return how the case's texts are read: by the tokenizer of the pretrained network, where one is named."""
    text = case.data.text
    if text is None:
        return preparation.Wording()
    tokenizer = tokenizer_of(case.train.pretrained, case.folder.resolve())
    return preparation.Wording(text.tokens, text.windows, tokenizer, text.measures, familiar, case.data.scale)


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


def _check_money(prepared: Prepared, columns: Columns) -> None:
    """Raise where a payoff has no value on some row, or `today` is neither an action nor a column: before any training."""
    rows = prepared.known
    payoffs = prepared.policy.payoffs
    used = prepared.whole.named(columns, prepared.policy.names)
    anchor = used or {"": np.zeros(len(rows))}
    if prepared.outcome.task.kind == "classes":
        payoffs.table(anchor)
    else:
        payoffs.at(anchor, prepared.outcome.values[rows])
    today = prepared.today(rows)
    policies.baseline_weights(replace(prepared.policy, limits=(), prices=()), len(rows), used, np.zeros(len(payoffs.options)), today)
