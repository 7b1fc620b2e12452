"""What other bundles than the champion would earn: on trial against it, and on all that the ledger has seen."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from makegood.contracts import Floats, Ints
from makegood.errors import Refused
from makegood.model import Model
from makegood.monitoring import experiments, exploring, guardrails, logged, planning
from makegood.monitoring.experiments import Terms, Trial
from makegood.monitoring.exploring import Exploration
from makegood.monitoring.maturity import Outcomes
from makegood.monitoring.review import Challenge, Guardrail, Ratio, Worth
from makegood.stages import pricing
from makegood.stages.facts import SAMPLE, Entrant, Facts, sample

_TIMED = 200  # decisions of each bundle that are timed, one by one


def challenges(facts: Facts) -> tuple[Challenge, ...]:
    """Return how each bundle on trial stands against the champion, and the champion against the one before it while that is guarded."""
    entrants = facts.standing.entrants
    found = _together([_challenge(facts, e) for e in entrants if e.place], 1.0 - facts.terms.promote.confidence)
    found += [_challenge(facts, e) for e in entrants if not e.place]
    before = facts.standing.before
    if before is not None:
        trial, _ = _drawn(facts, before, mine=facts.standing.champion)
        found.append(experiments.rollback(trial, _terms(facts, before), facts.now, before.model))
    return tuple(found)


def _together(found: list[Challenge], alpha: float) -> list[Challenge]:
    """Return the challenges, of which those wait that are not better once it is reckoned with that several are tried (e-BH)."""
    better = planning.together([c.evidence for c in found], alpha)
    why = f" But {len(found)} are on trial at once, and of the best of several more is asked."
    return [
        replace(c, decision="wait", why=c.why + why) if c.decision == "promote" and not enough else c
        for c, enough in zip(found, better.tolist(), strict=True)
    ]


def _challenge(facts: Facts, entrant: Entrant) -> Challenge:
    """Return the test of a bundle on trial: paired where outcomes tell of both actions, or it only shadows; else by what was drawn."""
    model = facts.model(entrant.model)
    told = bool(pricing.reveals(facts.log, model).all()) and not pricing.affected(model)
    if told or entrant.least is None:
        trial, rows = _paired(facts, entrant)
    else:
        entrant = replace(entrant, since=max(entrant.since, entrant.drawn or 0))
        trial, rows = _drawn(facts, entrant, mine=entrant.model)
    terms = _terms(facts, entrant)
    left = len(trial) / max((facts.now - entrant.since) / 1e6, 1.0) * facts.terms.retrain.horizon
    rails = tuple(_guardrails(facts, entrant, (trial, rows), terms)) if len(rows) else ()
    found = experiments.challenge(trial, terms, facts.now, entrant.model, guardrails=rails, left=left)
    if found.decision != "wait" or entrant.least is not None:
        return found
    try:
        explored = exploration(facts, entrant.model)
    except Refused as error:
        problem = error.problems[0]
        return replace(found, why=f"{found.why} It cannot be explored: {problem.where} is {problem.got}, {problem.expected}.")
    return replace(found, explore=None if explored is None else explored.to_json())


def exploration(facts: Facts, name: str) -> Exploration | None:
    """Return by which chances a bundle would be tried in a canary, on the budget that the case declares (MATHEMATICS §5).

    By the champion's latest decisions: what is lost is what the two expect, and what is uncertain what the challenger's prediction leaves
    open, for each pair of options on which they differ. None where no budget is declared, or where they do not differ. Raises `Refused`
    where the least chance would cost more than there is.
    """
    asked, log = facts.terms.explore, facts.log
    every = np.flatnonzero(facts.of(facts.standing.champion) & log.readable)[-SAMPLE:]
    if asked is None or not len(every):
        return None
    mine, theirs = (pricing.choices(log, facts.model(n), every).option for n in (facts.standing.champion, name))
    apart = (mine >= 0) & (theirs >= 0) & (mine != theirs)
    rows, mine, theirs = every[apart], mine[apart], theirs[apart]
    if not len(rows):
        return None
    by = [pricing.expected(log, facts.model(n), rows) for n in (facts.standing.champion, name)]
    pairs = [exploring.pair(log.options[a], log.options[b]) for a, b in zip(mine.tolist(), theirs.tolist(), strict=True)]
    names = ["", *dict.fromkeys(pairs)]
    place = {pair: i for i, pair in enumerate(names)}
    segment = np.array([place[pair] for pair in pairs], dtype=np.int64)
    square = pricing.squared(log, facts.model(name), rows)[np.arange(len(rows)), theirs]
    spread = exploring.spreads(np.sqrt(square), segment, len(names))
    seconds = max(float(log.at[every].max() - log.at[every].min()) / 1e6, 1.0)
    loss = exploring.losses(mine, theirs, *by)
    return exploring.budgeted(loss, segment, dict(zip(names, spread, strict=True)), asked.budget, seconds, asked.least)


def _terms(facts: Facts, entrant: Entrant) -> Terms:
    asked = facts.terms.promote
    return Terms(
        alpha=planning.spent(1.0 - asked.confidence, entrant.place) if entrant.place else 1.0 - asked.confidence,
        min_gain=asked.min_gain,
        cap=asked.cap,
        least=0.5 if entrant.least is None else entrant.least,
        since=entrant.since,
        delay_us=facts.delay_us,
        block_us=int((facts.terms.block or 0.0) * 1e6),
        missing=facts.terms.missing,
        unit=facts.log.unit,
    )


def _in_trial(facts: Facts, entrant: Entrant) -> Ints:
    """Return the decisions that the champion or the other one took since the trial began."""
    took = facts.of(facts.standing.champion) | facts.of(entrant.model)
    return np.flatnonzero(took & (facts.log.at >= entrant.since) & (facts.log.decided >= 0))


def _paired(facts: Facts, entrant: Entrant) -> tuple[Trial, Ints]:
    """Return the trial in which both actions of each row are compared under its outcome, and its decisions."""
    log, model = facts.log, facts.model(entrant.model)
    rows = _in_trial(facts, entrant)
    theirs, mine = (_choice(facts, rows, name) for name in (entrant.model, facts.standing.champion))
    there = (theirs >= 0) & (mine >= 0)  # where one of them could not score the row, it was not on trial
    rows, theirs, mine = rows[there], theirs[there], mine[there]
    differs = theirs != mine
    apart, at = rows[differs], np.arange(int(differs.sum()))
    paid, worst = np.zeros(len(rows)), np.zeros(len(rows))
    if len(apart):
        table = pricing.payoffs(log, model, apart, heard=True)
        low, high = pricing.ends(log, model, apart)
        paid[differs] = table[at, theirs[differs]] - table[at, mine[differs]]
        worst[differs] = low[at, theirs[differs]] - high[at, mine[differs]]
    done = log.done[rows]
    revealed = (done >= 0) & pricing.reveals(log, model)[np.maximum(done, 0)]
    paid = np.where(differs & ~revealed, np.nan, paid)
    nothing = np.zeros(len(rows))
    outcomes = Outcomes(log.at[rows], log.entity[rows], nothing, paid, log.known_at[rows], revealed, np.maximum(done, 0), worst)
    return experiments.paired(outcomes, differs), rows


def _choice(facts: Facts, rows: Ints, name: str) -> Ints:
    """Return what a bundle chose on rows, acting or in the shadow of another; −1 where it said nothing."""
    log = facts.log
    place = log.names.index(name) if name in log.names else -1
    beside = log.shadows[place].option[rows] if place in log.shadows else np.full(len(rows), -1)
    return np.where(log.model[rows] == place, log.decided[rows], beside)


def _drawn(facts: Facts, entrant: Entrant, *, mine: str) -> tuple[Trial, Ints]:
    """Return the trial in which it was drawn who acts where the two differ, and its decisions; `mine` is whose gain is asked for.

    Where they differ and nothing was left to chance, as once the money for exploring is spent, or where what was done will never tell what
    it paid, as after an erasure, a decision counts at its worst: what was never tried is not taken to be as good.
    """
    log, champion = facts.log, facts.standing.champion
    other = entrant.model if mine == champion else champion
    rows = _in_trial(facts, entrant)
    ours, theirs = (_choice(facts, rows, name) for name in (mine, other))
    there = (ours >= 0) & (theirs >= 0)  # both scored it: else it was not on trial
    rows, ours, theirs = rows[there], ours[there], theirs[there]
    outcomes, differs, chance = facts.firsts.take(rows), ours != theirs, log.chances[rows, log.decided[rows]]
    unseen = differs & ((chance >= 1.0) | ~outcomes.testable)
    if unseen.any():
        at = np.arange(int(unseen.sum()))
        low, high = pricing.ends(log, facts.model(entrant.model), rows[unseen])
        worst = outcomes.worst.copy()
        worst[unseen] = low[at, ours[unseen]] - high[at, theirs[unseen]]
        outcomes = replace(outcomes, worst=worst)
    return experiments.weighted(outcomes, differs, facts.of(mine)[rows], chance, unseen), rows


# ---------------------------------------------------------------------------------------------------------------- guardrails


def _guardrails(facts: Facts, entrant: Entrant, tried: tuple[Trial, Ints], terms: Terms) -> Sequence[Guardrail]:
    """Return what the case declares that a challenger must not worsen, in a trial and its decisions."""
    (trial, rows), asked, found = tried, facts.terms.promote, list[Guardrail]()
    if asked.harm is not None:
        found.append(guardrails.harm(trial, terms, facts.now, asked.harm))
    readable = rows[facts.log.readable[rows]]
    if asked.latency is not None and len(readable):
        timed = [_seconds(facts, facts.model(name), readable[-_TIMED:]) for name in (facts.standing.champion, entrant.model)]
        found.append(guardrails.latency(timed[0], timed[1], asked.latency, terms.alpha))
    protected = facts.case.data.protected
    if asked.slice_loss is not None and protected:
        cells = facts.log.rows(rows)
        columns = {name: np.array([str(cell) for cell in cells[name]], dtype=object) for name in protected if name in cells}
        found += guardrails.slices(trial, terms, facts.now, columns, asked.slice_loss)
    return found


def _seconds(facts: Facts, model: Model, rows: Ints) -> Floats:
    """Return how long a bundle takes for each of these decisions, one at a time, as it would serve them."""
    raw = pricing.inputs(facts.log, model, rows)
    spent = []
    for i in range(len(rows)):
        row = {name: cells[i] for name, cells in raw.items()}
        began = time.perf_counter()
        model.decide(row)
        spent.append(time.perf_counter() - began)
    return np.array(spent)


# --------------------------------------------------------------------------------------------------------------------- values


def ratio(facts: Facts) -> Ratio | None:
    """Return whether what was decided was drawn by the chances that were logged; None where nothing was left to chance."""
    log = facts.log
    rows = np.flatnonzero((log.decided >= 0) & (log.chances.max(axis=1, initial=0.0) < 1.0))
    if not len(rows):
        return None
    return logged.ratio(logged.Decisions(log.at[rows], log.entity[rows], log.decided[rows], log.chances[rows]), log.options)


def worths(facts: Facts) -> tuple[Worth, ...]:
    """Return what the champion and each bundle on trial would have earned on the decisions that were made since it came."""
    standing = facts.standing
    others = [*standing.entrants, *([standing.before] if standing.before else [])]
    if not others:
        return ()
    return tuple(_worth(facts, entrant) for entrant in (Entrant(standing.champion, standing.since), *others))


def _worth(facts: Facts, entrant: Entrant) -> Worth:
    log, model = facts.log, facts.model(entrant.model)
    there = facts.due & (log.at >= entrant.since) & (log.done == log.decided) & (log.done >= 0)
    rows = sample(log, np.flatnonzero(there))
    choice = pricing.choices(log, model, rows).option
    rows, choice = rows[choice >= 0], choice[choice >= 0]  # where it cannot decide, nobody can say what it would have earned
    decisions = logged.Decisions(log.at[rows], log.entity[rows], log.done[rows], log.chances[rows])
    paid, recorded = pricing.payoffs(log, model, rows), ~np.isnan(log.outcome[rows])
    reveals, known = pricing.reveals(log, model), pricing.sure(log, model, rows)
    share = logged.observed(decisions, recorded)
    if pricing.affected(model):
        seen = logged.by_action(decisions, paid[np.arange(len(rows)), log.done[rows]], share, known)
    else:
        seen = logged.by_outcome(decisions, paid, share, reveals, known)
    q = logged.recalibrated(decisions, seen, pricing.expected(log, model, rows))
    return logged.worth(entrant.model, decisions, seen, choice, q, pricing.ends(log, model, rows), log.unit)
