"""Sample reviews and loops: a promise kept, an alarm, a refusal, nothing yet, high stakes with hostile names; two loops."""

from __future__ import annotations

import math
import random
from dataclasses import replace

from makegood.contracts import Estimate
from makegood.monitoring.review import (
    CAUSES,
    Alarm,
    Attribution,
    Challenge,
    Guardrail,
    Moved,
    Period,
    Plan,
    Ratio,
    Review,
    Share,
    Worth,
)
from makegood.report.looped import Event, Looping

NAN = math.nan
HOSTILE = "<script>alert(1)</script>'\"&\x00‮</style><img src=x onerror=alert(2)>"
DAY = 86_400_000_000
START = 1_767_225_600_000_000  # 1 Jan 2026
MODEL, OLD = "4f1c9a0b7d2e8c3a5b6d7e8f90a1b2c3", "b07e5521aa90cc17d1e2f3a4b5c6d7e8"


def est(value: float, half: float, unit: str = "EUR", **more: bool) -> Estimate:
    return Estimate(value, value - half, value + half, unit, **more)


def quiet(**more: object) -> Alarm:
    rng, m, path = random.Random(3), 1.0, []
    for i in range(400):
        m = (m + 1) * (1 + 0.004 * rng.gauss(-0.8, 2.0) - 0.003)
        path.append((START + i * DAY // 3, m))
    test = Alarm(False, m, 36_500.0, None, 400, 0.4, 55.0, math.inf, "The evidence of a broken promise is far from its limit.", tuple(path))
    return replace(test, **more)  # type: ignore[arg-type]


def raised() -> Alarm:
    rng, m, path = random.Random(5), 1.0, []
    for i in range(400):
        m = (m + 1) * (1 + 0.01 * rng.gauss(-0.3 if i < 260 else 9.0, 3.0))
        path.append((START + i * DAY // 3, max(m, 0.1)))
    since = next(t for t, v in path if v >= 36_500)
    why = (
        "Since March the model has earned less than it promised: the evidence of it passed its limit, which chance does once in 100 years."
    )
    missing = Alarm(False, 2.1, 36_500.0, None, 400, 0.02, 1.0, math.inf, "As many outcomes are missing as was declared.", tuple(path[:40]))
    return Alarm(True, path[-1][1], 36_500.0, since, 400, 0.4, 55.0, 214.0, why, tuple(path), missing)


def periods(drop: float, models: tuple[str, ...] = (OLD, MODEL)) -> tuple[Period, ...]:
    rng, found = random.Random(11), []
    for w in range(18):
        model = models[0] if w < 7 else models[-1]
        promised = 11.6 + (0.9 if w >= 7 else 0.0) + rng.gauss(0, 0.15)
        realised = promised + rng.gauss(0, 0.45) - (drop * min(max(w - 11, 0), 3) / 3)
        found.append(
            Period(
                model, START + 7 * w * DAY, START + 7 * (w + 1) * DAY, 1400 + 13 * w, 1400 - 10 * w,
                est(promised, 0.3), est(realised, 1.1), est(promised - realised, 1.0),
            )
        )  # fmt: skip
    return tuple(found)


def maturity() -> tuple[Share, ...]:
    shares = ((d, 1 - math.exp(-d / 12)) for d in range(0, 61, 3))
    return tuple(Share(d * 86_400.0, Estimate(s, max(s - 0.02, 0.0), min(s + 0.02, 1.0))) for d, s in shares)


def sequence(gain: float, b: float) -> tuple[tuple[int, float, float, float], ...]:
    rng = random.Random(7)
    found = []
    for n in range(100, 8001, 100):
        value, half = gain + rng.gauss(0, b / math.sqrt(n) / 3), b / math.sqrt(n)
        found.append((n, value - half, value, value + half))
    return tuple(found)


PROMOTE = Challenge(
    "c2d39f00117ab24d5e6f708192a3b4c5", "paired", "betting", 8000, 1912, est(0.83, 0.41), est(0.83, 0.33), 48.2, 20.0, 0.1, "promote",
    "It earns more than the model by at least the 0.10 EUR asked for, on 8,000 revealed decisions.", sequence(0.83, 36.0),
    Plan(0.8, 0.9, 1240, 6100, 0.0, -12.0),
    (
        Guardrail("harm", est(0.004, 0.002, ""), 0.01, True),
        Guardrail("latency", est(14.0, 2.0, "ms"), 50.0, True),
        Guardrail("region=north", est(-0.2, 0.9), -0.5, None),
    ),
)  # fmt: skip
WAIT = Challenge(
    "e91b02d4aa17c0ffee5f708192a3b4c5", "disagreement", "betting", 900, 212, est(0.31, 1.4), est(0.31, 1.1), 1.7, 20.0, 0.1, "wait",
    "The evidence is not enough yet.", sequence(0.31, 42.0)[:9], Plan(0.5, 0.8, 2100, 9400, 38.4, 2140.0),
)  # fmt: skip
FAILED = replace(
    WAIT, model="linear-baseline", design="disagreement", test="asymptotic", decision="failed", path=(), plan=None,
    why="A payoff of −412 EUR lies beyond the declared cap of −300 EUR: the test rests on it and has ended.",
    guardrails=(Guardrail("harm", est(0.031, 0.006, ""), 0.01, False),),
)  # fmt: skip
DRIFT = (
    Moved("income_monthly", "number", est(-1.32, 0.2), 0.31, "mean 2,310, was 2,790"),
    Moved("region", "category", est(-0.22, 0.08), 0.12, "north 31%, was 22%"),
    Moved("employer", "missing", est(0.05, 0.06), 0.04, "missing in 9.1%, was 5.2%"),
    Moved("", "prediction", est(-1.4, 0.3), 0.22, "mean 0.14, was 0.11"),
)


def attribution() -> Attribution:
    values = dict(zip(CAUSES, (-0.9, -2.6, 0.4, 0.0, -0.3, -0.1), strict=True))
    causes = {c: est(v, 0.15 + abs(v) / 4) for c, v in values.items()}
    said = "The value fell by 3.40 EUR per decision, and most of it because outcomes of like rows are worse: −2.60 EUR."
    return Attribution((START, START + 60 * DAY), (START + 61 * DAY, START + 126 * DAY), est(-3.4, 0.8), causes, est(0.1, 0.2), said)


def good() -> Review:
    """A promise kept, and a challenger that is better."""
    return Review(
        "consumer-loans", "EUR", START + 126 * DAY, MODEL, 27_180, 23_672, 312, est(12.1, 0.2), est(12.0, 0.6), est(0.1, 0.5),
        est(0.05, 0.2), quiet(), periods(0.0), maturity(), (PROMOTE, WAIT), DRIFT[1:3], None,
        (
            Worth(MODEL, est(12.0, 0.6), "", 23_672, 0.0, est(12.0, 0.6)),
            Worth(PROMOTE.model, est(12.9, 0.8), "", 14_200, 0.01, est(12.8, 1.1)),
        ),
        Ratio(0.41, 0.001, True, "1,359 of 27,180 decisions were explored, as their chances say."),
        "promote", "The challenger earns more, and both guardrails that can be judged hold.", "makegood promote consumer-loans c2d39f00117a",
        {"load": 0.41, "realised": 0.22, "drift": 0.55},
    )  # fmt: skip


def alarm() -> Review:
    """An alarm in a replay with injected drift."""
    return replace(
        good(), realised=est(10.2, 0.6), gap=est(1.9, 0.5), outlook=est(-0.8, 0.3), alarm=raised(), periods=periods(4.0), challenges=(),
        drift=DRIFT, attribution=attribution(), worths=good().worths[:1], verdict="retrain", replayed=True,
        why="The promise has been broken since March, mostly because outcomes of like rows are worse.",
        next="makegood run consumer-loans, and set the new model in shadow.",
        injected="From March on, the chance of default of borrowers in the north is doubled.",
    )  # fmt: skip


def refused() -> Review:
    """Little can be told: too few units, chances that are not true, no value of another bundle."""
    return replace(
        good(), n=212, matured=41, overridden=0, promised=est(12.1, 0.2), realised=Estimate(9.0, NAN, NAN, "EUR"),
        gap=Estimate(3.1, NAN, NAN, "EUR"), outlook=None, alarm=quiet(ticks=4, path=()), periods=periods(0.0)[:1], maturity=maturity()[:3],
        challenges=(FAILED,), drift=(), attribution=None,
        worths=(Worth("linear-baseline", None, "It would approve 38% of rows that were never approved; at an exploration of 5% about 60 days "
                      "are needed.", 12.0, 0.38, est(8.0, 9.0)),),
        ratio=Ratio(2.1e-9, 0.001, False, "94 of 212 decisions were explored; their chances say 11."), verdict="wait",
        why="There are too few independent outcomes, and the chances logged are not true.", next="Correct the logged chances.",
    )  # fmt: skip


def empty() -> Review:
    """Decisions, but no outcome yet."""
    nothing = Estimate(NAN, NAN, NAN, "EUR")
    return Review(
        "consumer-loans", "EUR", START, MODEL, 318, 0, 0, est(12.1, 0.4), nothing, nothing, None,
        quiet(evidence=0.0, ticks=0, path=(), why="The first outcome is due on 31 January."), (), (), (), (), None, (), None, "wait",
        "No outcome is due before 31 January.", "Report outcomes as they come: makegood outcome.",
    )  # fmt: skip


def unused() -> Review:
    """Not even a decision."""
    nothing = Estimate(NAN, NAN, NAN, "EUR")
    return replace(empty(), n=0, promised=nothing, why="", next="")


def stakes() -> Review:
    """Large money, tails, names that try to become code."""
    big = {"unit": HOSTILE, "tail_limited": True}
    challenge = replace(
        PROMOTE, model=HOSTILE, why=HOSTILE, decision="drop", gain=Estimate(-1.2e6, -2.9e6, -4e5, **big), beside=Estimate(-1.2e6, -3e6, 1e5),
        path=(), plan=Plan(0.0, 0.8, 1.0, math.inf, math.inf, 0.0), guardrails=(Guardrail(HOSTILE, Estimate(1.0, 0.5, 1.5, **big), 2.0, True),),
    )  # fmt: skip
    return replace(
        alarm(), case=HOSTILE, unit=HOSTILE, promised=Estimate(4.2e7, 4.1e7, 4.3e7, **big), realised=Estimate(3.1e7, 2.2e7, 4e7, **big),
        gap=Estimate(1.1e7, 2e6, 2e7, **big), periods=(replace(periods(0.0)[0], model=HOSTILE),), model=HOSTILE, challenges=(challenge,),
        drift=(Moved(HOSTILE, HOSTILE, Estimate(-1e6, -2e6, -1e5, **big), 0.9999, HOSTILE),), injected=HOSTILE, why=HOSTILE, next=HOSTILE,
        alarm=replace(raised(), why=HOSTILE, expected_delay=math.inf),
        attribution=replace(attribution(), words=HOSTILE), worths=(Worth(HOSTILE, None, HOSTILE, 3.0, 0.5, Estimate(0.0, -1e9, 1e9)),),
        ratio=Ratio(0.0, 1e-3, False, HOSTILE), verdict="rollback", seconds={HOSTILE: 1.0},
    )  # fmt: skip


def growth(slope: float, half: float) -> tuple[tuple[int, Estimate], ...]:
    weeks = range(0, 53)
    return tuple((START + 7 * w * DAY, est(slope * max(w - 18, 0) - 300 * (18 < w < 24), half * math.sqrt(w + 1))) for w in weeks)


def looped() -> Looping:
    """A loop that paid."""
    events = (
        Event(START + 140 * DAY, "alarm", "The promise of 4f1c9a0b7d2e is broken: evidence 41,200 of 36,500."),
        Event(START + 141 * DAY, "retrained", "c2d39f00117a, on decisions up to 20 May."),
        Event(START + 141 * DAY, "shadow", "c2d39f00117a beside 4f1c9a0b7d2e."),
        Event(START + 155 * DAY, "canary", "c2d39f00117a decides half of where the two differ."),
        Event(START + 176 * DAY, "promoted", "c2d39f00117a earns 0.83 EUR more per decision."),
        Event(START + 260 * DAY, "dropped", "e91b02d4aa17 gains nothing."),
        Event(START + 300 * DAY, "rolled back", "c2d39f00117a broke a guardrail in its guard period."),
    )
    return Looping(
        "consumer-loans", "EUR", START, START + 364 * DAY, 81_420,
        {"makegood": est(948_000, 21_000), "never": est(871_000, 22_000), "scheduled": est(921_000, 23_000), "oracle": est(967_000, 20_000)},
        {"never": est(77_000, 9_500), "scheduled": est(27_000, 8_800), "oracle": est(-19_000, 7_000)},
        {"never": growth(2264.0, 1300.0), "scheduled": growth(794.0, 1200.0), "oracle": growth(-559.0, 960.0)},
        events, (good(), alarm()), {"replay": 412.0, "retraining": 86.0}, True,
        "From 20 May on, the chance of default of borrowers in the north is doubled.",
    )  # fmt: skip


def still() -> Looping:
    """A loop in which nothing happened, compared with nothing."""
    return Looping("quiet-case", "JPY", START, START + DAY, 0, {"makegood": Estimate(0.0, NAN, NAN, "JPY")}, {})


def strange() -> Looping:
    """Names that try to become code."""
    gains = {"never": Estimate(-1e9, -2e9, -1e8, HOSTILE, tail_limited=True), HOSTILE: Estimate(1.0, NAN, NAN, HOSTILE)}
    return replace(
        looped(), case=HOSTILE, unit=HOSTILE, injected=HOSTILE, events=(Event(START, HOSTILE, HOSTILE),), reviews=(stakes(),), gains=gains,
        money={**looped().money, HOSTILE: Estimate(1.0, 0.0, 2.0, HOSTILE)}, seconds={HOSTILE: 1.0},
        path={HOSTILE: looped().path["never"], "never": ()},
    )  # fmt: skip


REVIEWS = {"good": good, "alarm": alarm, "refused": refused, "empty": empty, "unused": unused, "stakes": stakes}
LOOPS = {"looped": looped, "still": still, "strange": strange}
