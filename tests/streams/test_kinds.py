from __future__ import annotations

from pathlib import Path

import lightgbm
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import makegood
from makegood.case import Case
from makegood.contracts import Columns, Floats
from makegood.data.prepare import raw_columns
from makegood.economics.payoff import Payoffs
from makegood.errors import CaseError
from makegood.monitoring import maturity
from makegood.streams import DRIFTING, KINDS, NEVER, Stream, loans, offers, stream
from makegood.streams.arrivals import LOST
from makegood.streams.truth import DAY, START

LOANS = tuple(kind for kind in KINDS if kind != "offer")
N, PAST = 8_000, 3_000


def made(kind: str, seed: int = 0, **said: object) -> Stream:
    """Return a stream that is long enough to see its kind."""
    return stream(kind, seed, **{"n": N, "history": PAST, **said})  # type: ignore[arg-type]


def money(of: Stream) -> Floats:
    """Return what each action pays under each outcome (n, n_actions, 2), as the case declares it."""
    actions = Case.parse(of.case).decision.actions
    return Payoffs.of({name: a.model_dump() for name, a in actions.items()}, "EUR", of.classes).table(raw_columns(of.rows))


def column(table: pa.Table, name: str) -> np.ndarray:
    """Return a column as an array."""
    return table[name].to_numpy(zero_copy_only=False)


def columns(table: pa.Table) -> Columns:
    """Return every column as an array."""
    return {name: column(table, name) for name in table.column_names}


# ---------------------------------------------------------------------------------------------------------------- what every kind is


@pytest.mark.parametrize("kind", LOANS)
def test_a_stream_is_a_case_its_past_and_rows_to_decide_on(kind: str) -> None:
    s = made(kind)
    case = Case.parse(s.case)
    outcome = case.data.outcome
    assert (case.data.time, case.data.group) == (s.time, s.entity) == ("applied_at", "customer")
    assert (s.kind, s.seed, len(s), s.rows.num_rows, s.history.num_rows) == (kind, 0, N, N, PAST)
    assert s.history.column_names == [*s.rows.column_names, outcome]
    assert tuple(case.decision.actions) == s.actions
    assert set(s.outcome) == set(column(s.history, outcome)) == set(s.classes)
    assert s.outcome.shape == s.known_at.shape == (N,)
    assert s.truth.shape == (N, 2)
    np.testing.assert_allclose(s.truth.sum(axis=1), 1)
    assert 0.1 <= s.truth[:, 1].mean() <= 0.25
    assert s.what
    assert all(pc.is_valid(s.history[name]).to_pylist().count(False) == 0 for name in s.history.column_names if name != "income")


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_makes_the_same_stream_and_another_makes_another(kind: str) -> None:
    one, again, other = made(kind), made(kind), made(kind, seed=1)
    assert one.rows.equals(again.rows)
    assert one.history.equals(again.history)
    np.testing.assert_array_equal(one.outcome, again.outcome)
    np.testing.assert_array_equal(one.known_at, again.known_at)
    np.testing.assert_array_equal(one.truth, again.truth)
    assert (one.challenger is None) == (again.challenger is None)
    assert one.challenger is None or one.challenger.equals(again.challenger)
    assert not one.rows.equals(other.rows)


@pytest.mark.parametrize("kind", KINDS)
def test_time_runs_and_the_past_is_known_at_the_start(kind: str) -> None:
    s = made(kind)
    case = Case.parse(s.case.replace("affected_by_action: yes", "affected_by_action: no"))
    past = s.history[s.time].cast(pa.int64()).to_numpy()
    assert (np.diff(past) >= 0).all()
    assert (np.diff(s.at) >= 0).all()
    assert past[-1] + case.data.outcome_delay * 1e6 <= START <= s.at[0]
    assert s.at[-1] < START + N * DAY / 20
    assert [START <= at <= s.at[-1] for at in s.changed_at] == [True] * len(s.changed_at)


@pytest.mark.parametrize("kind", KINDS)
def test_outcomes_arrive_within_the_delay_or_never(kind: str) -> None:
    s = made(kind)
    delay_us = 14 * DAY
    comes = s.known_at != NEVER
    assert ((s.known_at - s.at)[comes] > 0).all()
    assert ((s.known_at - s.at)[comes] <= delay_us).all()
    if kind != "outage":
        lost = (~comes).mean()
        assert abs(lost - LOST) < 4 * np.sqrt(LOST / N)
    assert NEVER == maturity.NEVER


@pytest.mark.parametrize("kind", KINDS)
def test_the_truth_is_calibrated(kind: str) -> None:
    """Outcomes come as often as the truth says: in all, among the risky and the safe, before a change and after."""
    s = made(kind)
    for action in range(s.truth.shape[1] if s.truth.ndim == 3 else 1):
        p = s.truth[:, action, 1] if s.truth.ndim == 3 else s.truth[:, 1]
        y = s.became(np.full(N, action)) == s.classes[1]
        parts = [np.ones(N, np.bool_), p < np.median(p), p > np.quantile(p, 0.9), s.at < (*s.changed_at, s.at[N // 2])[0]]
        for part in (*parts, ~parts[-1]):
            assert abs((y - p)[part].mean()) < 4 * np.sqrt((p * (1 - p))[part].mean() / part.sum())


@pytest.mark.parametrize("kind", [*LOANS, "offer"])
def test_a_policy_is_worth_what_the_truth_says(kind: str) -> None:
    """The mean that an arbitrary policy is paid is its true value up to chance, and no policy beats the oracle."""
    s = made(kind)
    if kind == "offer":
        spend = column(s.rows, "spend")
        pays = np.stack([np.outer(spend, (0, -0.5)), np.outer(spend, (-0.04, -0.54))], axis=1)
    else:
        pays = money(s)
    expected, oracle = s.expected(pays), s.oracle(pays)
    done, every = np.random.default_rng(0).integers(0, 2, N), np.arange(N)
    paid = pays[every, done, (s.became(done) == s.classes[1]).astype(int)]
    gap = paid - expected[every, done]
    assert abs(gap.mean()) < 4 * gap.std() / np.sqrt(N)
    assert (expected[every, oracle] >= expected.max(axis=1)).all()
    assert expected[every, oracle].mean() > expected.mean(axis=0).max() + 5


@pytest.mark.parametrize("kind", LOANS)
def test_payoffs_lie_within_the_declared_caps_where_there_are_any(kind: str) -> None:
    s = made(kind)
    cap = Case.parse(s.case).feedback.promote.cap
    assert (cap is None) == (kind == "heavy")
    if cap is not None:
        assert cap[0] <= money(s).min()
        assert money(s).max() <= cap[1]


def test_a_gain_is_a_few_hundredths_of_the_amount_and_a_loss_is_half_of_it() -> None:
    for kind in ("stable", "price"):
        s = made(kind)
        share = money(s)[:, 0] / column(s.rows, "amount")[:, None]
        assert share[:, 0].min() >= 0.01
        assert share[:, 0].max() <= 0.07
        np.testing.assert_allclose(share[:, 1], -0.5)


def test_customers_come_back_and_stay_who_they_are() -> None:
    s = made("stable")
    everybody = pa.concat_tables([s.history.drop_columns(["defaulted"]), s.rows]).to_pandas()
    assert 0.15 <= everybody["customer"].duplicated().mean() <= 0.25
    assert (everybody.groupby("customer")[["age", "job", "region"]].nunique() == 1).to_numpy().all()


def test_columns_hang_together() -> None:
    rows = made("stable").rows.to_pandas()
    found = rows[["amount", "months", "score", "burden", "utilisation"]].corr()
    assert found.loc["amount", "months"] > 0.5
    assert found.loc["score", "utilisation"] < -0.4
    assert found.loc["score", "burden"] < -0.2


# ------------------------------------------------------------------------------------------------------------------ what changes


def halves(s: Stream) -> float:
    """Return the greatest |z| by which a column, or the outcome, differs between the two halves of a stream."""
    rows = s.rows.drop_columns([s.time, s.entity]).to_pandas()
    given = pd.get_dummies(rows.assign(bad=s.outcome == s.classes[1], truth=s.truth[:, 1]), dummy_na=True).astype(float)
    first, second = given.iloc[: N // 2], given.iloc[N // 2 :]
    spread = np.sqrt(first.var() / first.count() + second.var() / second.count())
    return float(((first.mean() - second.mean()).abs() / spread).max())


@pytest.mark.parametrize("kind", ["stable", "heavy", "adversarial", "harmful", "useless", "delay"])
def test_where_nothing_changes_rows_are_exchangeable(kind: str) -> None:
    assert halves(made(kind)) < 4.5
    p = loans.risk(columns(made(kind).rows), np.zeros(N))
    np.testing.assert_allclose(p, made(kind).truth[:, 1])


def test_a_world_that_changes_leaves_the_rows_as_they_are() -> None:
    stable, sudden, gradual = made("stable"), made("sudden"), made("gradual")
    assert sudden.rows.equals(stable.rows)
    assert gradual.rows.equals(stable.rows)
    was, now = (loans.risk(columns(stable.rows), np.full(N, world)) for world in (0.0, 1.0))
    at = int(0.4 * N)
    assert sudden.changed_at == (stable.at[at],)
    np.testing.assert_allclose(sudden.truth[:, 1], np.where(np.arange(N) < at, was, now))
    begin, end = np.searchsorted(gradual.at, gradual.changed_at)
    assert (begin, end) == (at, at + N // 4)
    np.testing.assert_allclose(gradual.truth[:begin, 1], was[:begin])
    np.testing.assert_allclose(gradual.truth[end + 1 :, 1], now[end + 1 :])
    low, high = np.minimum(was, now), np.maximum(was, now)
    between = (np.arange(N) > begin) & (np.arange(N) < end - 1) & (high - low > 0.01)
    assert ((gradual.truth[:, 1] > low) & (gradual.truth[:, 1] < high))[between].all()


@pytest.mark.parametrize("kind", ["mix", "price", "outage"])
def test_rows_that_change_leave_the_world_as_it_is(kind: str) -> None:
    s, at = made(kind), int(0.4 * N)
    assert s.changed_at[0] == s.at[at]
    if kind == "outage":
        score = column(s.rows, "score")
        assert np.isnan(score).tolist() == [False] * at + [True] * (N - at)
        silent = slice(at, at + N // 10)
        assert (s.known_at[silent] == NEVER).all()
        assert (s.known_at[:at] == NEVER).mean() < 0.03
        assert (s.known_at[silent.stop :] == NEVER).mean() < 0.03
        assert s.changed_at[1] == s.at[silent.stop]
        np.testing.assert_allclose(s.truth, made("stable").truth)
        return
    np.testing.assert_allclose(s.truth[:, 1], loans.risk(columns(s.rows), np.zeros(N)))
    if kind == "mix":
        online = column(s.rows, "channel") == "online"
        assert online[:at].mean() < 0.02
        assert abs(online[at:].mean() - 0.7) < 0.03
        rest = [name for name in s.rows.column_names if name not in ("channel", "enquiries", "margin")]
        assert s.rows.select(rest).equals(made("stable").rows.select(rest))
    else:
        margin = column(s.rows, "margin")
        np.testing.assert_allclose(margin[at:], 1.5 * column(made("stable").rows, "margin")[at:], atol=2e-4)
        assert (margin[:at] < loans.DEAR).mean() > 0.99
        assert (margin[at:] > loans.DEAR).mean() > 0.8


def test_outcomes_come_later_and_later() -> None:
    s = made("delay")
    share = np.where(s.known_at == NEVER, np.nan, (s.known_at - s.at) / (14 * DAY))
    begin, end = np.searchsorted(s.at, s.changed_at)
    assert np.nanmax(share[:begin]) <= 0.33
    assert np.nanmin(share[end + 1 :]) >= 0.8
    thirds = [np.nanmean(part) for part in np.array_split(share[begin:end], 3)]
    assert np.nanmean(share[:begin]) < thirds[0] < thirds[1] < thirds[2] < np.nanmean(share[end:])


def test_losses_come_last() -> None:
    s = made("adversarial")
    bad, comes = s.outcome == "yes", s.known_at != NEVER
    assert ((s.known_at - s.at)[bad & comes] == 14 * DAY).all()
    assert ((s.known_at - s.at)[~bad & comes] <= 0.2 * 14 * DAY).all()
    now = s.at[N // 2]
    seen = (s.known_at <= now) & (s.at > now - 14 * DAY)
    assert seen.sum() > 100
    assert not bad[seen].any()


def test_heavy_tails_are_as_heavy_as_they_say() -> None:
    """Hill's estimate of the index on the 500 largest of 20,000 amounts has a standard error of index/√500."""
    s = made("heavy", n=20_000)
    largest = np.sort(column(s.rows, "amount"))[-501:]
    index = 1 / np.log(largest[1:] / largest[0]).mean()
    assert abs(index - loans.TAIL) < 4 * loans.TAIL / np.sqrt(500)
    paid = money(s)[:, 0, 1]
    skew = ((paid - paid.mean()) ** 3).mean() / paid.std() ** 3
    assert len(paid) < 25 * skew**2  # what makes an interval tail-limited


def test_a_selective_case_reveals_nothing_of_the_declined() -> None:
    for selective in (False, True):
        s = made("sudden", selective=selective)
        actions = Case.parse(s.case).decision.actions
        assert (actions["approve"].reveals, actions["decline"].reveals) == (True, not selective)
        assert s.rows.equals(made("sudden").rows)


def test_an_offer_changes_what_becomes_of_a_customer() -> None:
    s = made("offer")
    with pytest.raises(CaseError, match="treatment cases are not built yet"):
        Case.parse(s.case)
    assert (s.outcome.shape, s.truth.shape) == ((N, 2), (N, 2, 2))
    moved = s.truth[:, 1, 1] - s.truth[:, 0, 1]
    assert (moved < -0.05).mean() > 0.2  # kept by the offer
    assert (moved > 0.02).mean() > 0.2  # driven away by it
    np.testing.assert_allclose(s.truth[:, :, 1], offers.leaving(columns(s.rows)))
    nothing, offer = s.became(np.zeros(N, np.int64)), s.became(np.ones(N, np.int64))
    np.testing.assert_array_equal(s.outcome, np.stack([nothing, offer], axis=1))
    done = column(s.history, offers.DONE) == "offer"
    assert abs(done.mean() - 0.5) < 4 * 0.5 / np.sqrt(PAST)
    p = offers.leaving(columns(s.history))[np.arange(PAST), done.astype(int)]
    left = column(s.history, "leaves") == "yes"
    assert abs((left - p).mean()) < 4 * np.sqrt((p * (1 - p)).mean() / PAST)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"kind": "suden"}, r"kind: got 'suden'; expected one of stable, sudden, .*; did you mean 'sudden'\?"),
        ({"n": 0}, "n, history: got '0, 3000'; expected at least one row each"),
        ({"change": 1.0}, "change: got '1.0'; expected a share of the rows above 0 and below 1"),
        ({"kind": "offer", "selective": True}, "selective: got 'offer'; expected a kind whose outcome is the same whatever is done"),
    ],
)
def test_what_cannot_be_made_is_refused(said: dict[str, object], message: str) -> None:
    with pytest.raises(CaseError, match=message):
        made(**{"kind": "stable", **said})  # type: ignore[arg-type]


def test_a_change_near_the_end_is_told_as_far_as_it_comes() -> None:
    s = made("gradual", n=400, change=0.9)
    assert s.changed_at == (s.at[360],)
    assert len(made("stable", n=1, history=1)) == 1


# --------------------------------------------------------------------------------------------------------------- what it is worth


def numbers(table: pa.Table) -> Floats:
    """Return a table's inputs as numbers; what is missing counts as nothing."""
    rows = table.drop_columns([n for n in ("applied_at", "customer", "defaulted") if n in table.column_names]).to_pandas()
    levels = {"job": loans.JOBS, "region": loans.REGIONS, "channel": loans.CHANNELS}
    return pd.get_dummies(rows.assign(**{name: pd.Categorical(rows[name], levels[name]) for name in levels})).astype(float).to_numpy()


def logistic(X: Floats, y: Floats, rows: Floats) -> Floats:
    """Return the probabilities of a logistic regression; what is missing counts as the median."""
    middle = np.nan_to_num(np.array([np.median(c[~np.isnan(c)]) if (~np.isnan(c)).any() else 0.0 for c in X.T]))
    X, rows = (np.where(np.isnan(part), middle, part) for part in (X, rows))
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(X, y).predict_proba(rows)[:, 1]


def boosted(X: Floats, y: Floats, rows: Floats) -> Floats:
    """Return the probabilities of boosted trees."""
    settings = {"objective": "binary", "num_leaves": 15, "min_data_in_leaf": 40, "verbose": -1, "num_threads": 1}
    return lightgbm.train(settings, lightgbm.Dataset(X, y), 60).predict(rows)


def worth(s: Stream, p: Floats, rows: slice) -> float:
    """Return what decisions by these probabilities are truly worth on some rows."""
    pays = money(s)
    option = (pays * np.stack([1 - p, p], axis=1)[:, None, :]).sum(axis=2).argmax(axis=1)
    return float(s.expected(pays)[np.arange(len(s)), option][rows].mean())


@pytest.mark.parametrize("learner", [logistic, boosted])
@pytest.mark.parametrize("kind", DRIFTING)
def test_a_model_from_after_the_change_earns_more(kind: str, learner: object) -> None:
    """3,000 rows after the change are worth more than 8 EUR a decision (bench/streams.py has 20 seeds of each)."""
    s = made(kind, n=12_000, change=0.25)
    X, past = numbers(s.rows), numbers(s.history)
    y = s.outcome == "yes"
    learnt = slice(int(np.searchsorted(s.at, s.changed_at[-1])), None)
    learnt = slice(learnt.start, learnt.start + 3000)
    after = slice(learnt.stop, None)
    stale = learner(past, column(s.history, "defaulted") == "yes", X)  # type: ignore[operator]
    new = learner(X[learnt], y[learnt], X)  # type: ignore[operator]
    assert worth(s, new, after) > worth(s, stale, after) + 8
    assert worth(s, stale, slice(0, 3000)) > worth(s, stale, after) + 8


def test_a_stable_world_has_nothing_to_learn_anew_and_challengers_are_what_they_are_called() -> None:
    after = slice(4000, None)
    s, harmful, useless = made("stable"), made("harmful"), made("useless")
    X, y = numbers(s.rows), s.outcome == "yes"
    stale = worth(s, logistic(numbers(s.history), column(s.history, "defaulted") == "yes", X), after)
    new = worth(s, logistic(X[:3000], y[:3000], X), after)
    assert abs(new - stale) < 2
    found = {}
    for of in (harmful, useless):
        assert of.challenger is not None
        assert of.challenger.schema == of.history.schema
        assert of.rows.equals(s.rows)
        assert of.challenger["applied_at"].equals(of.history["applied_at"])
        found[of.kind] = worth(s, logistic(numbers(of.challenger), column(of.challenger, "defaulted") == "yes", X), after)
    assert found["harmful"] < stale - 15
    assert abs(found["useless"] - stale) < 2


@pytest.mark.parametrize("kind", ["stable", "heavy"])
def test_the_case_runs(kind: str, tmp_path: Path) -> None:
    """A small stream's files train a model that decides on the rows of every kind that has this past."""
    s = made(kind, n=300, history=1500)
    path = s.write(tmp_path)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("budget: 10s, families: [linear, lightgbm]", "budget: 1s, families: linear"), encoding="utf-8")
    run = makegood.run(path, workspace=tmp_path / "runs", until="bundle")
    assert run.split["method"] == "time"
    assert run.bundle is not None
    model = makegood.load(run.bundle)
    every = [other for other in (made(name, n=300, history=1500) for name in LOANS) if other.history.equals(s.history)]
    assert len(every) == (1 if kind == "heavy" else 10)
    for other in every:
        decided = model.decide_columns(raw_columns(other.rows))
        assert set(decided.action) <= set(loans.ACTIONS)
        assert len(decided.action) == 300
