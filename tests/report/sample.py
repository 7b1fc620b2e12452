"""Evaluations as a run would hand them over, for the tests of the page: a loan case, a school's number outcome, images.

Run as a script, it writes both pages, and the hard ones, into the folder given.
"""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from makegood.contracts import Compute, Estimate, Evaluation, Finding, Mistake, Mistakes, PayoffRange, Slice, Usage
from makegood.report.page import ReportInput, render
from makegood.trust.fairness import Group

NAN, INF = math.nan, math.inf
HOSTILE = "\"><script>alert('x')</script><img src=x onerror=alert(1)>&amp; </style>\u202e\x00"

CREDIT_CASE = """\
case: credit-risk
about: Approve or decline a store card.
data:
  source: builtin:credit-risk
  outcome: defaulted
  affected_by_action: no            # a default if the card is given
  protected: [sex, age]
decision:
  unit: BRL
  actions:
    approve:
      payoff:
        no: 0.23 * min(income, 5000)
        yes: -0.75 * min(income, 5000)
      reveals: true
    decline:
      payoff: 0
      reveals: false
  today: approve
  limits: {approve: {max_share: 0.8}}
train: {budget: 25s}
"""


def money(value: float, half: float, unit: str = "BRL", tail: bool = False) -> Estimate:
    """Return an estimate with a symmetric interval."""
    return Estimate(value, value - half, value + half, unit, tail_limited=tail)


def group(column: str, level: str, n: int, share: float, reference: float | None) -> Group:
    """Return one protected group, compared with the share of the reference (None: it is the reference)."""
    half = 1.96 * math.sqrt(share * (1 - share) / n)
    base = share if reference is None else reference
    return Group(
        column,
        level,
        n,
        reference is None,
        "approve",
        money(50 * share, 5.0),
        {"approve": Estimate(share, share - half, share + half), "decline": Estimate(1 - share, 1 - share - half, 1 - share + half)},
        Estimate(share, share - half, share + half),
        difference=Estimate(share - base, share - base - 2 * half, share - base + 2 * half),
        ratio=Estimate(share / base, share / base - 2 * half, share / base + 2 * half),
        tpr=Estimate(share + 0.06, share + 0.06 - half, share + 0.06 + half),
        fpr=Estimate(share - 0.17, share - 0.17 - half, share - 0.17 + half),
    )


def credit() -> ReportInput:
    """Return the loan case: two actions, a binary outcome, a leak, a warning, a limit."""
    curve = tuple((i / 50, 25.61 + 15.76 * math.sin(1.85 * i / 50) / math.sin(1.85)) for i in range(51))
    decision_curve = tuple((t / 100, 0.27 * math.exp(-4.2 * t / 100), 0.27 - 0.73 * (t / 100) / (1 - t / 100)) for t in range(1, 60))
    evaluation = Evaluation(
        unit="BRL",
        n={"train": 24_000, "valid": 6_000, "test": 10_000},
        value=money(41.37, 4.92),
        baselines={"today": money(25.61, 6.4), "always approve": money(25.61, 6.4), "always decline": Estimate(0.0, 0.0, 0.0, "BRL")},
        gains={"today": money(15.76, 4.2), "always approve": money(15.76, 4.2), "always decline": money(41.37, 4.92)},
        gain=money(15.76, 4.2),
        gain_over="today",
        oracle=money(101.2, 3.3),
        promised=money(42.06, 1.2),
        gap=money(0.69, 4.8),
        metrics={
            "roc_auc": Estimate(0.6512, 0.638, 0.6641),
            "log_loss": Estimate(0.5431, 0.534, 0.552),
            "brier": Estimate(0.1817, 0.178, 0.185),
            "ece": Estimate(0.0092, 0.004, 0.015),
            "accuracy": Estimate(0.735, 0.726, 0.744),
        },
        shares={"approve": 0.683, "decline": 0.317},
        curve=curve,
        decision_curve=decision_curve,
        calibration=tuple(
            (p, min(1.0, p * 0.96 + 0.008), n)
            for p, n in zip((0.07, 0.13, 0.19, 0.25, 0.31, 0.4, 0.52), (900, 2100, 2600, 2000, 1300, 800, 300), strict=True)
        ),
        promise_curve=tuple((float(p), p * 0.97 + (-1) ** i * 3.0, 1250) for i, p in enumerate((0, 8, 17, 29, 44, 63, 92, 141))),
        payoff_ranges=(
            PayoffRange("approve", "no", "0.23 * min(income, 5000)", 148.2, 0.81, INF, 0.72, 0.93, 1.08),
            PayoffRange("approve", "yes", "-0.75 * min(income, 5000)", -431.7, 0.62, 1.94, 0.51, 0.92, 1.09),
            PayoffRange("decline", "", "0", 0.0, -INF, INF, NAN, -INF, INF),
        ),
        slices=(
            Slice("sex", "F", 6151, money(43.0, 6.1), money(0.4, 5.9), {"approve": 0.702, "decline": 0.298}, protected=True),
            Slice("sex", "M", 3849, money(38.8, 7.9), money(1.2, 7.8), {"approve": 0.653, "decline": 0.347}, protected=True),
            Slice("age", "≤ 25", 1892, money(9.1, 11.2), money(6.8, 10.9), {"approve": 0.391, "decline": 0.609}, protected=True),
            Slice("age", "26–45", 4910, money(42.6, 7.3), money(-0.3, 7.1), {"approve": 0.698, "decline": 0.302}, protected=True),
            Slice("age", "> 45", 3198, money(58.6, 8.8), money(-1.4, 8.6), {"approve": 0.834, "decline": 0.166}, protected=True),
            Slice("residence_type", "owned", 8312, money(44.9, 5.4), money(0.2, 5.3), {"approve": 0.711, "decline": 0.289}),
            Slice("residence_type", "rented", 1688, money(24.1, 12.0, tail=True), money(3.1, 11.9), {"approve": 0.546, "decline": 0.454}),
        ),
        drivers=(
            ("age", 21.4),
            ("income", 14.92),
            ("months_in_the_job", 9.3),
            ("id_shop", 7.71),
            ("marital_status", 4.02),
            ("residence_type", 1.61),
        ),
        confusion={"approve": {"no": 5489, "yes": 1341}, "decline": {"no": 1861, "yes": 1309}},
        verdict="deploy",
        why="The lower end of the gain over every baseline is above zero: 11.56 BRL per decision over what is done today.",
        candidates=(
            {"name": "lightgbm", "weight": 0.62, "log_loss": 0.5442, "value": 40.91},
            {"name": "linear", "weight": 0.38, "log_loss": 0.5487, "value": 38.7},
            {"name": "constant", "weight": 0.0, "log_loss": 0.5826, "value": 25.61},
        ),
        calibrator="beta",
        compute=Compute(
            training=Usage(158.2, 301.7, 0.0, 913_000_000),
            candidates={"lightgbm": Usage(14.22, 27.4, 0.0, 901_000_000), "linear": Usage(1.93, 1.91, 0.0, 702_000_000)},
            decision=Usage(0.00212, 0.00208, 0.0, 913_000_000),
            rows=300,
            decisions=None,
            per_decision=0.0,
        ),
    )
    return ReportInput(
        case={
            "case": "credit-risk",
            "about": "Approve or decline a store card. Real data: 40,000 applications at a Brazilian retail chain (PAKDD 2009).",
            "data": {"outcome": "defaulted", "protected": ["sex", "age"]},
            "decision": {
                "unit": "BRL",
                "today": "approve",
                "actions": {"approve": {"payoff": {}}, "decline": {"payoff": "0", "reveals": False}},
                "limits": {"approve": {"max_share": 0.8}},
            },
        },
        case_text=CREDIT_CASE,
        evaluation=evaluation,
        run="20260301T101500-8f3a",
        findings=(
            Finding("leak", "collections_opened", 40_000, "Alone it tells the outcome with an AUC of 0.993.", "excluded", "leak"),
            Finding("group_overlap", "area_code", 212, "212 areas have fewer than five rows.", "kept", "warning"),
            Finding("duplicate", "", 37, "37 rows repeat an earlier row in every column.", "dropped"),
            Finding("missing_outcome", "defaulted", 0, "Every row has its outcome.", "kept"),
            Finding("mixed_type", "months_in_the_job", 12, "12 values are text among numbers, such as 'n/a'.", "treated as missing"),
        ),
        split={
            "method": "stratified",
            "seed": 0,
            "hash": "sha256:5b1d0c2e7f9a4433",
            "purged": 0,
            "detail": "25% of the rows are held out.",
        },
        fairness=(
            group("sex", "F", 6151, 0.702, None),
            group("sex", "M", 3849, 0.653, 0.702),
            group("age", "26–45", 4910, 0.698, None),
            group("age", "> 45", 3198, 0.834, 0.698),
            group("age", "≤ 25", 1892, 0.391, 0.698),
        ),
        seconds={"read": 0.31, "prepare": 1.84, "train": 19.4, "evaluate": 6.1, "pack": 0.92},
        hashes={"data": "sha256:93ab17c05fd2", "case": "sha256:0c55aa81be90", "bundle": "sha256:77e1f3a40d12"},
        versions={"makegood": "0.1.0", "python": "3.11.9", "numpy": "2.3.1", "lightgbm": "4.6.0"},
    )


def school() -> ReportInput:
    """Return a number outcome (a final grade), three actions, no interval on anything: five schools are too few groups."""

    def points(value: float) -> Estimate:
        return Estimate(value, NAN, NAN, "points")

    names = ("today", "always no help", "always group", "always tutor")
    values = dict(zip(names, (0.31, 0.0, 0.4012, 0.35), strict=True))
    evaluation = Evaluation(
        unit="points",
        n={"train": 316, "test": 79},
        value=points(0.4623),
        baselines={k: points(v) for k, v in values.items()},
        gains={k: points(0.4623 - v) for k, v in values.items()},
        gain=points(0.4623 - 0.4012),
        gain_over="always group",
        oracle=points(0.92),
        promised=points(0.4801),
        gap=points(0.0178),
        metrics={"rmse": Estimate(2.031, NAN, NAN), "mae": Estimate(1.4, NAN, NAN), "coverage_90": Estimate(0.886, NAN, NAN)},
        shares={"no help": 0.52, "group": 0.3, "tutor": 0.18},
        curve=(),
        decision_curve=(),
        calibration=tuple((q, min(1.0, q + 0.02), 79) for q in (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)),
        promise_curve=((0.1, 0.14, 26), (0.4, 0.35, 27), (0.9, 0.87, 26)),
        payoff_ranges=(PayoffRange("tutor", "", "0.4 * (outcome < 10) - 0.1", 0.11, -INF, INF, NAN, 0.7, 1.6),),
        slices=(Slice("school", "GP", 70, points(0.48), points(0.01), {"no help": 0.5, "group": 0.3, "tutor": 0.2}),),
        drivers=(("G2", 0.41), ("absences", 0.07)),
        confusion={},
        verdict="refuse",
        why="No interval can be given: 5 groups, and at least 6 are needed.",
        opened=3,
        level=1 - 0.05 / 3,
    )
    return ReportInput(
        case={"case": "学生成绩", "about": "谁需要辅导? Who needs a tutor?", "data": {}, "decision": {"unit": "points"}},
        case_text="case: 学生成绩\n",
        evaluation=evaluation,
        run="20260301T111500-77aa",
        split={"method": "group", "seed": 0, "hash": "sha256:11"},
    )


def hard() -> ReportInput:
    """Return the loan case with thirty baselines, hostile, very long and Chinese names, and a loss against today."""
    base = credit()
    e = base.evaluation
    options = {f"always stock={50 * i}": money(20.0 - 3.1 * abs(i - 4), 2.0, tail=i == 4) for i in range(29)}
    long = "the_average_monthly_balance_of_all_current_and_savings_accounts_over_the_last_twenty_four_months_in_local_currency"
    loss = money(-4.24, 3.9, tail=True)
    evaluation = replace(
        e,
        baselines={"today": e.baselines["today"], **options},
        gains={"today": loss, **{name: money(41.37 - v.value, 4.0) for name, v in options.items()}},
        gain=loss,
        drivers=((HOSTILE, 31.0), (long, 22.0), ("客户的月收入", 11.0), *((f"column {i}", 5.0 / (i + 1)) for i in range(40))),
        slices=(
            *e.slices,
            Slice(HOSTILE, long, 40, money(-12.0, 9.0), money(2.0, 9.0), {"approve": 0.1, "decline": 0.9}),
            Slice("城市", "上海", 900, money(33.0, 9.0), money(2.0, 9.0), {"approve": 0.5, "decline": 0.5}),
        ),
        verdict="refuse",
        why=f"The model loses money against what is done today. {HOSTILE}",
        metrics={**e.metrics, HOSTILE: Estimate(1.0, 0.9, 1.1)},
        candidates=({"name": HOSTILE, "weight": 1.0, "log_loss": NAN},),
        compute=Compute(
            Usage(7260.0, 9000.0, 3600.0, 12_500_000_000, 3125.0),
            {HOSTILE: Usage(3600.0, 3700.0, 3500.0, None, 2500.0)},
            Usage(0.0005, 0.0004, 0.0, None, 3e-8),
            rows=41,
            decisions=10_000,
            per_decision=0.31250003,
        ),
        calibrator=HOSTILE,
    )
    return replace(
        base,
        case={**base.case, "case": HOSTILE, "about": HOSTILE, "data": {"protected": [HOSTILE]}},
        case_text=base.case_text + HOSTILE,
        evaluation=evaluation,
        run=HOSTILE,
        findings=(*base.findings, Finding("leak", HOSTILE, 3, HOSTILE, HOSTILE, "leak")),
        split={"method": "stratified", HOSTILE: HOSTILE},
        fairness=(*base.fairness, replace(base.fairness[1], column=HOSTILE, level=long, tpr=None, selection=Estimate(NAN, NAN, NAN))),
        versions={HOSTILE: HOSTILE},
        hashes={HOSTILE: HOSTILE},
        notes=("The outcomes are simulated.", HOSTILE),
    )


def digits() -> ReportInput:
    """Return the loan case with a gallery: small grey and large coloured images, one that is missing, and hostile names."""
    grey = np.clip(np.add.outer(np.arange(8), np.arange(8)) * 18, 0, 255).astype(np.uint8)[..., None]
    colour = np.stack([np.tile(np.arange(300) % 256, (200, 1)), np.full((200, 300), 40), np.full((200, 300), 200)], axis=2).astype(np.uint8)
    misread = Mistake(grey, "3/img_0017.png", "3", "8", 0.0213, 0.9614, "read 8", "read 3", 3.0)
    found = [replace(misread, outcome=str(i), loss=3.0 - i / 5) for i in range(9)]
    found += [replace(misread, image=colour, place="a/very/long/path/to/an/image/that/nobody/would/type/by/hand/0000000000000001.png")]
    found += [replace(misread, image=None, place="", predicted="3", p_predicted=0.0213, action="person", loss=0.1)]
    found += [Mistake(grey, HOSTILE, HOSTILE, HOSTILE, 0.1, 0.9, HOSTILE, HOSTILE, 0.1)]
    return replace(credit(), mistakes=Mistakes("BRL", 10_000, 1_204, 151.2, tuple(found)))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for make in (credit, school, hard, digits):
        (folder / f"{make.__name__}.html").write_text(render(make()), encoding="utf-8")
