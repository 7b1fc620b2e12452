from __future__ import annotations

import math

import pytest

from makegood.contracts import Estimate
from makegood.report import words

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("value", "digits", "written"),
    [(1234567.0, 0, "1,234,567"), (-0.5, 1, "−0.5"), (-0.04, 1, "0.0"), (0.0, 2, "0.00"), (NAN, 2, "–"), (INF, 0, "∞"), (-INF, 3, "−∞")],
)
def test_number(value: float, digits: int, written: str) -> None:
    assert words.number(value, digits) == written


@pytest.mark.parametrize(
    ("unit", "values", "digits"),
    [
        ("EUR", (12.4, 8.1, 16.7), 2),  # money keeps its cents
        ("EUR", (1234.5, 1200.0, 1270.0), 0),  # or none of them
        ("EUR", (188.2, 118.0, 258.4), 0),  # an interval this wide makes cents a pretence
        ("EUR", (0.0312, 0.0287, 0.0340), 4),  # below one unit, as fine as the interval
        ("EUR", (0.0, 0.0, 0.0), 2),
        ("JPY", (12.4, 8.1, 16.7), 0),  # no minor unit
        ("points", (12.4, 8.1, 16.7), 1),
        ("", (0.787, 0.761, 0.813), 3),
        ("", (0.787, NAN, NAN), 3),
        ("", (NAN, NAN, NAN), 0),
        ("", (5.0, -INF, INF), 2),
        ("", (1e-12, NAN, NAN), 8),
        ("", (123456.0, 1e5, 1.5e5), 0),
    ],
)
def test_digits(unit: str, values: tuple[float, ...], digits: int) -> None:
    assert words.digits(unit, *values) == digits


def test_an_estimate_is_read_at_one_precision() -> None:
    text = words.with_interval(Estimate(12.4, 8.1, 16.7, "EUR"))
    assert '<data value="12.4">12.40\u00a0EUR</data>' in text
    assert '[<data value="8.1">8.10</data>,\u00a0<data value="16.7">16.70</data>]' in text
    assert "†" not in text


def test_a_tail_limited_interval_is_marked_and_explained() -> None:
    estimate = Estimate(12.4, 8.1, 16.7, "EUR", tail_limited=True)
    assert '<a href="#tail-limited" aria-label="tail-limited">†</a>' in words.interval(estimate)
    assert words.short(estimate) == "12.40 [8.10, 16.70]†"


def test_no_interval_says_why() -> None:
    estimate = Estimate(12.4, NAN, NAN, "EUR")
    assert "(no interval: fewer than 6 groups)" in words.with_interval(estimate)
    assert "(no interval)" in words.bare(estimate)
    assert words.short(estimate) == "12.40"


@pytest.mark.parametrize(
    ("share", "written"),
    [(0.0, "0%"), (1.0, "100%"), (0.0004, "<0.1%"), (0.9996, ">99.9%"), (0.1234, "12.3%"), (-0.05, "−5.0%"), (NAN, "–")],
)
def test_percent(share: float, written: str) -> None:
    assert words.percent(share) == written


@pytest.mark.parametrize(("value", "written"), [(1.3149, "×1.31"), (123.4, "×123"), (12.34, "×12.3"), (0.0123, "×0.012"), (NAN, "×–")])
def test_factor(value: float, written: str) -> None:
    assert words.factor(value) == written


@pytest.mark.parametrize(("seconds", "written"), [(0.0, "0 ms"), (0.9999, "1.0 s"), (59.99, "1 min 0 s"), (3599.6, "1 h 0 min")])
def test_duration(seconds: float, written: str) -> None:
    assert words.duration(seconds) == written


@pytest.mark.parametrize(
    ("name", "label", "better"),
    [
        ("roc_auc", "ROC AUC", "higher"),
        ("log_loss", "Log loss", "lower"),
        ("recall_at_10", "Recall at 10", "higher"),
        ("coverage_90", "Coverage of the 90% range", "closer to 90%"),
        ("my_own_2", "my own 2", ""),
    ],
)
def test_metric(name: str, label: str, better: str) -> None:
    known = words.metric(name)
    assert (known.label, known.better) == (label, better)
    assert "{}" not in known.meaning


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, "–"),
        (True, "yes"),
        (False, "no"),
        (1234, '<data value="1234.0">1,234</data>'),
        (0.5442, '<data value="0.5442">0.544</data>'),
        ("a<b", "a&lt;b"),
        (["a", 1], "a, 1"),
        ({"n_rows": "x"}, '<span class="line">n rows: x</span>'),
    ],
)
def test_anything(value: object, written: str) -> None:
    assert words.anything(value) == written


def test_anything_knows_an_estimate() -> None:
    assert words.anything(Estimate(0.5, 0.4, 0.6)) == words.with_interval(Estimate(0.5, 0.4, 0.6))


def test_listed() -> None:
    assert [words.listed(names) for names in ([], ["a"], ["a", "b"])] == ["", "a", "a and b"]


def test_a_rate_shows_its_interval_in_per_cent() -> None:
    text = words.rate(Estimate(0.391, 0.369, 0.413))
    assert '<data value="0.391">39.1%</data>' in text
    assert '[<data value="0.369">36.9%</data>,\u00a0<data value="0.413">41.3%</data>]' in text
