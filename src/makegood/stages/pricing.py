"""What decisions in a log pay, would have paid, and are expected to pay, by the payoffs of a bundle.

Rows are positions in the log, options columns in its order; what a bundle does not offer, and a row whose inputs are gone, has no value:
NaN, or −1 for a choice. Nothing here raises because of what a row holds: a payoff without a value on it is NaN as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from makegood.contracts import Bools, Columns, Floats, Ints, Probabilities
from makegood.economics.payoff import Clause, Payoffs, Terms
from makegood.errors import DataError, Problem
from makegood.model import Model, Raw
from makegood.monitoring import bounds
from makegood.stages.observe import Log, Shadowed, widened

_BLOCK = 1 << 16  # rows at a time
_CELLS = 1 << 22  # payoffs at a time


# ------------------------------------------------------------------------------------------------------------------ options


def places(log: Log, model: Model) -> Ints:
    """Return where each of a bundle's options stands among the log's; raises `DataError` where one is not there (see `repriced`)."""
    place = {name: i for i, name in enumerate(log.options)}
    names = [option.name for option in model.policy.payoffs.options]
    if new := [name for name in names if name not in place]:
        got = f"{', '.join(new[:12])} of {model.id or 'a model'}"
        raise DataError(Problem("options", got, "options that the log knows", "prepare the log for all its models"))
    return np.array([place[name] for name in names], dtype=np.int64)


def reveals(log: Log, model: Model) -> Bools:
    """Return of which options (n_options,) the outcome is seen; of one that the bundle does not offer it is not."""
    out = np.zeros(len(log.options), dtype=np.bool_)
    out[places(log, model)] = [terms.reveals for terms in model.policy.payoffs.actions for _ in terms.options]
    return out


# ------------------------------------------------------------------------------------------------------------------- inputs


def inputs(log: Log, model: Model, rows: Ints) -> Raw:
    """Return what a bundle reads of rows, as it takes it; a column that the log lacks is missing throughout."""
    return _raw(log, model.transform.inputs, rows)


def _raw(log: Log, names: Sequence[str], rows: Ints) -> Raw:
    there = log.rows(rows)
    missing = np.full(len(rows), np.nan)
    return {name: there.get(name, missing) for name in names} or {"": missing}  # rows without a value are rows too


def priced(log: Log, model: Model, rows: Ints) -> Columns:
    """Return the columns that a bundle's payoffs and limits are made of, as it reads them."""
    return _columns(log, model, model.policy.names, rows)


def _columns(log: Log, model: Model, names: frozenset[str], rows: Ints) -> Columns:
    if not names:
        return {}
    return model.pricing.named(model.pricing.read(_raw(log, model.pricing.inputs, rows))[0], names)


def _blocks(n: int, width: int) -> Iterator[slice]:
    """Yield stretches of n rows whose tables, `width` payoffs a row, stay small."""
    step = max(1, min(_BLOCK, _CELLS // max(width, 1)))
    return (slice(start, min(start + step, n)) for start in range(0, n, step))


# ------------------------------------------------------------------------------------------------------------------ payoffs


def _value(terms: Terms, clause: Clause, columns: Columns, n: int, outcome: str | Floats) -> Floats:
    """Return what each option of an action pays by a clause: (n, n_options), NaN where that is no number.

    `outcome` is a class, or a number for each row.
    """
    given = {"action": terms.name, "quantity": terms.steps, "outcome": outcome if isinstance(outcome, str) else outcome[None]}
    value = np.broadcast_to(clause.expression.compute(columns, given), (len(terms.options), 1, n))[:, 0].T
    return np.where(np.isfinite(value), value, np.nan)


def _table(payoffs: Payoffs, columns: Columns, n: int) -> Floats:
    """Return what each option pays under each class: (n, n_options, n_classes)."""
    out = np.empty((n, len(payoffs.options), len(payoffs.classes)))
    for c, name in enumerate(payoffs.classes):
        for terms, clause in payoffs.clauses():
            if clause.outcome in ("", name):
                out[:, payoffs.slices[terms.name], c] = _value(terms, clause, columns, n, name)
    return out


def _at(payoffs: Payoffs, columns: Columns, outcome: Floats) -> Floats:
    """Return what each option pays at a number for each row: (n, n_options)."""
    return np.concatenate([_value(terms, clause, columns, len(outcome), outcome) for terms, clause in payoffs.clauses()], axis=1)


def _spread(log: Log, model: Model, rows: Ints, pay: Callable[[Columns, Ints], Floats]) -> Floats:
    """Return (len(rows), n_options) of `pay`, option by option; it takes the columns of payoffs on some rows, and which of `rows` they are.

    NaN where the bundle has no such option, or the row no inputs that its payoffs need.
    """
    payoffs, place = model.policy.payoffs, places(log, model)
    out = np.full((len(rows), len(log.options)), np.nan)
    there = np.flatnonzero(log.readable[rows]) if payoffs.names else np.arange(len(rows))
    for block in _blocks(len(there), len(payoffs.options) * max(len(payoffs.classes), 1)):
        at = there[block]
        out[np.ix_(at, place)] = pay(_columns(log, model, payoffs.names, rows[at]), at)
    return out


def payoffs(log: Log, model: Model, rows: Ints, *, heard: bool = False) -> Floats:
    """Return what each option would have paid on rows by the last word on their outcome, or the first (`heard`): (len(rows), n_options).

    NaN without an outcome. Where the outcome is that of the action alone (`affected_by_action`), NaN but for what was done.
    """
    return _worth(log, model, rows, log.heard if heard and log.heard is not None else log.outcome)


def _worth(log: Log, model: Model, rows: Ints, word: Floats) -> Floats:
    """Return what each option would have paid on rows by a word (n,) on the outcome of each decision of the log."""
    terms, came = model.policy.payoffs, word[rows]
    if terms.classes:
        meant = [terms.classes.index(name) if name in terms.classes else -1 for name in log.classes]
        code = np.array([*meant, -1], dtype=np.int64)[np.where(np.isnan(came), -1, came).astype(np.int64)]
        there = np.flatnonzero(code >= 0)
    else:
        there = np.flatnonzero(np.isfinite(came)) if not log.classes else np.empty(0, dtype=np.int64)

    def pay(columns: Columns, at: Ints) -> Floats:
        if not terms.classes:
            return _at(terms, columns, came[there[at]])
        table = _table(terms, columns, len(at))
        return np.asarray(np.take_along_axis(table, code[there[at], None, None], axis=2)[:, :, 0])

    out = np.full((len(rows), len(log.options)), np.nan)
    out[there] = _spread(log, model, rows[there], pay)
    if affected(model):
        out[np.arange(len(log.options)) != log.done[rows][:, None]] = np.nan
    return out


def affected(model: Model) -> bool:
    """Return whether the outcome would be another under another action."""
    return bool(model.case.get("data", {}).get("affected_by_action", False))


def sure(log: Log, model: Model, rows: Ints) -> Floats:
    """Return what each option pays on rows whatever comes, NaN where that depends on the outcome: (len(rows), n_options)."""
    terms = model.policy.payoffs
    if terms.classes:
        return _spread(log, model, rows, lambda columns, at: _fixed(*bounds.ends(_table(terms, columns, len(at)))))
    depends = np.concatenate([[clause.expression.uses_outcome] * len(action.options) for action, clause in terms.clauses()])
    return _spread(log, model, rows, lambda columns, at: np.where(depends, np.nan, _at(terms, columns, np.zeros(len(at)))))


def _fixed(low: Floats, high: Floats) -> Floats:
    return np.asarray(np.where(low == high, low, np.nan))


def ends(log: Log, model: Model, rows: Ints) -> bounds.Ends:
    """Return the least and the most that each option can pay on rows: (len(rows), n_options) each.

    Where that is not known (`known_end`), the ends that the case declares for all payoffs (`feedback.promote.cap`); without them, −∞
    and ∞.
    """
    low, high = known_end(log, model, rows, 0), known_end(log, model, rows, 1)
    cap = model.case.get("feedback", {}).get("promote", {}).get("cap") or (-np.inf, np.inf)
    return np.where(np.isnan(low), float(cap[0]), low), np.where(np.isnan(high), float(cap[1]), high)


def known_end(log: Log, model: Model, rows: Ints, end: int) -> Floats:
    """Return the least (`end` 0) or the most (1) that each option can pay on rows, (len(rows), n_options), NaN where nobody can tell.

    Over the classes of the outcome; where it is a number, what the option pays whatever comes.
    """
    terms = model.policy.payoffs
    if not terms.classes:
        return sure(log, model, rows)
    return _spread(log, model, rows, lambda columns, at: bounds.ends(_table(terms, columns, len(at)))[end])


# -------------------------------------------------------------------------------------------------------------------- models


def choices(log: Log, model: Model, rows: Ints) -> Shadowed:
    """Return what a bundle chooses on rows and what it promises; −1 and NaN where it cannot decide."""
    place = places(log, model)
    option, promise = np.full(len(rows), -1, dtype=np.int64), np.full(len(rows), np.nan)

    def choose(at: Ints) -> None:
        found = model.decide_columns(inputs(log, model, rows[at]), reasons=0).choices
        option[at], promise[at] = place[found.option], found.promise

    _where_decided(log, model, rows, choose)
    return Shadowed(option, promise)


def expected(log: Log, model: Model, rows: Ints) -> Floats:
    """Return what a bundle expects each option to pay on rows: (len(rows), n_options)."""
    place = places(log, model)
    out = np.full((len(rows), len(log.options)), np.nan)

    def assess(at: Ints) -> None:
        columns, _ = model.transform.read(inputs(log, model, rows[at]))
        out[np.ix_(at, place)] = model.assess(columns)[1]

    _where_decided(log, model, rows, assess)
    return out


def squared(log: Log, model: Model, rows: Ints) -> Floats:
    """Return the mean square of what each option pays on rows, as a bundle predicts: (len(rows), n_options), 0 where it cannot say."""
    place, terms = places(log, model), model.policy.payoffs
    out = np.zeros((len(rows), len(log.options)))

    def assess(at: Ints) -> None:
        columns, _ = model.transform.read(inputs(log, model, rows[at]))
        predictive, named = model.assess(columns)[0], priced(log, model, rows[at])
        if isinstance(predictive, Probabilities):
            square = (_table(terms, named, len(at)) ** 2 * predictive.p[:, None, :]).sum(axis=2)
        else:  # levels stand for equal shares, near enough for a spread
            square = np.mean([_at(terms, named, q) ** 2 for q in predictive.q.T], axis=0)
        out[np.ix_(at, place)] = square

    _where_decided(log, model, rows, assess)
    return np.nan_to_num(out)


def _where_decided(log: Log, model: Model, rows: Ints, work: Callable[[Ints], None]) -> None:
    """Do `work` on those of `rows`, by position and block by block, on which a bundle decides: every payoff and cost has a value."""
    terms = model.policy.payoffs
    readable = np.flatnonzero(log.readable[rows])
    for block in _blocks(len(readable), max(len(model.transform.features), len(terms.options) * max(len(terms.classes), 1))):
        at = readable[block]
        columns = priced(log, model, rows[at])
        if terms.classes:
            fine = np.isfinite(_table(terms, columns, len(at))).all(axis=(1, 2))
        else:  # a payoff may have no value at one number and have one at another: only what is missing is told beforehand
            fine = np.ones(len(at), dtype=np.bool_)
            for values in columns.values():
                fine &= np.array([value is not None and value == value for value in values.tolist()])
        for limit in model.policy.limits:
            if limit.cost is not None:
                steps = next(action.steps for action in terms.actions if action.name == limit.action)
                cost = limit.cost.compute(columns, {"action": limit.action, "quantity": steps})
                fine &= (np.isfinite(cost) & (cost >= 0.0)).reshape(-1, cost.shape[-1] if cost.ndim else 1).all(axis=0)
        _halved(at[fine], work)


def _halved(at: Ints, work: Callable[[Ints], None]) -> None:
    """Do work on all positions, or, where one of them does not let it be done, on either half."""
    if not len(at):
        return
    try:
        work(at)
    except DataError:
        if len(at) > 1:
            for half in (at[: len(at) // 2], at[len(at) // 2 :]):
                _halved(half, work)


# ------------------------------------------------------------------------------------------------------------------ repriced


def repriced(log: Log, models: Mapping[str, Model]) -> Log:
    """Return a log that is ready for its models: it knows all their options, and what every decision paid that can be told.

    The ledger knows what was paid as it was reckoned when word came. Of a decision that was overridden since, or whose correction brought
    no payoff, it is reckoned here, from its inputs, by the payoffs of the model that decided; where that is not among `models`, or the
    inputs are gone, it stays unknown.
    """
    log = widened(log, [option.name for model in models.values() for option in model.policy.payoffs.options])
    first, paid = log.first.copy(), log.paid.copy()
    heard = log.outcome if log.heard is None else log.heard
    for place, name in enumerate(log.names):
        if name not in models:
            continue
        model, mine = models[name], np.flatnonzero((log.model == place) & (log.done >= 0))
        mine = mine[reveals(log, model)[log.done[mine]]]
        for word, amounts in ((log.outcome, paid), (heard, first)):
            rows = mine[np.isnan(amounts[mine]) & ~np.isnan(word[mine])]
            if len(rows):
                amounts[rows] = _worth(log, model, rows, word)[np.arange(len(rows)), log.done[rows]]
    return replace(log, first=first, paid=paid)
