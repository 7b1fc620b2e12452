"""How the page says things: numbers for people, money with its unit, intervals, names of metrics and stages."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from makegood.contracts import Estimate
from makegood.report.markup import Markup, join, tag

MISSING = "–"
NBSP = "\u00a0"
_NO_MINOR = frozenset("CLP ISK JPY KRW PYG UGX VND XAF XOF".split())  # currencies without minor units (ISO 4217)
_TOO_FEW = "no interval: fewer than 6 groups"


class Metric(NamedTuple):
    """How a metric is called, which way is better, and what it says."""

    label: str
    better: str
    meaning: str


METRICS = {
    "roc_auc": Metric("ROC AUC", "higher", "chance that a row with the outcome is ranked above one without it; 0.5 is guessing, 1 perfect"),
    "accuracy": Metric("Accuracy", "higher", "share of rows whose most probable outcome came true"),
    "log_loss": Metric("Log loss", "lower", "surprise at what came true, in nats; punishes confident mistakes"),
    "brier": Metric("Brier score", "lower", "mean squared error of the probabilities"),
    "ece": Metric("Calibration error", "lower", "mean distance between predicted and observed shares over the bins (ECE)"),
    "rmse": Metric("RMSE", "lower", "root mean squared error of the prediction, in units of the outcome"),
    "mae": Metric("MAE", "lower", "mean absolute error of the median, in units of the outcome"),
    "qwk": Metric("Weighted kappa", "higher", "agreement beyond chance, errors weighted by their squared distance"),
    "pinball": Metric("Pinball loss", "lower", "mean quantile loss over the levels, in units of the outcome"),
    "smape": Metric("sMAPE", "lower", "symmetric mean absolute percentage error, from 0 to 200"),
    "coverage": Metric("Coverage of the {}% range", "closer to {}%", "share of outcomes inside the range that should hold {}% of them"),
    "set_coverage": Metric("Coverage of the sets", "", "share of outcomes that are in their prediction set"),
    "set_size": Metric("Size of the sets", "lower", "outcomes in a prediction set, on average"),
    "recall_at": Metric("Recall at {}", "higher", "share of the wanted items among the first {} shown"),
    "ndcg_at": Metric("NDCG at {}", "higher", "wanted items among the first {}, discounted by their position; 1 is the best order"),
}


def metric(name: str) -> Metric:
    """Return how a metric is called; an unknown one by its own name.

    >>> metric("recall_at_10").label, metric("my_score").label
    ('Recall at 10', 'my score')
    """
    stem, _, k = name.rpartition("_")
    if stem in METRICS and k.isdecimal():
        return Metric(*(part.format(k) for part in METRICS[stem]))
    return METRICS.get(name, Metric(plain(name), "", ""))


def column(name: str) -> Markup:
    """Return a column's name as code, which may break after an underscore.

    >>> column("pay_day")
    '<code>pay_<wbr>day</code>'
    """
    head, *rest = name.split("_")
    return tag("code", head, [["_", tag("wbr"), part] for part in rest])


def plain(key: str) -> str:
    """Return a key of our own as words.

    >>> plain("log_loss")
    'log loss'
    """
    return key.replace("_", " ")


# ---------------------------------------------------------------------------------------------------------------- numbers


def number(value: float, digits: int = 0) -> str:
    """Return a number with thousands separators and a true minus sign; NaN is a dash, zero has no sign.

    >>> number(-1234.5, 1), number(-0.001, 2), number(float("nan")), number(float("-inf"))
    ('−1,234.5', '0.00', '–', '−∞')
    """
    if math.isnan(value):
        return MISSING
    text = "∞" if math.isinf(value) else f"{abs(value):,.{digits}f}"
    return f"−{text}" if value < 0 and text.strip("0.,") else text


def digits(unit: str, *values: float) -> int:
    """Return how many decimals figures that stand together deserve: one precision for a value and its interval.

    An interval is given to two digits of its width, a lone value to three significant ones. Money (a three-letter currency code)
    shows its minor unit or nothing: nothing from 1,000 on or where the interval is wider than 100, more below one unit.

    >>> digits("EUR", 12.4, 8.1, 16.7), digits("EUR", 188, 118, 258), digits("", 0.787, 0.761, 0.813), digits("", 2.5)
    (2, 0, 3, 2)
    """
    finite = [v for v in values if math.isfinite(v)]
    size = max((abs(v) for v in finite), default=0.0)
    width = max(finite) - min(finite) if len(finite) > 1 else 0.0
    fine = 1 - _magnitude(width) if width > size * 1e-9 else 2 - _magnitude(size)
    fine = min(max(fine, 0), 8)
    if not re.fullmatch("[A-Z]{3}", unit):
        return fine
    minor = 0 if unit in _NO_MINOR else 2
    if size >= 1000 or width >= 100:
        return 0
    return minor if size >= 1 or size == 0 else max(minor, fine)


def _magnitude(value: float) -> int:
    return math.floor(math.log10(value)) if value > 0 else 2


def figure(value: float, digits: int, unit: str = "") -> Markup:
    """Return a number as it is read, with the exact value behind it for machines.

    >>> figure(1234.5678, 0, "EUR")
    '<data value="1234.5678">1,235\\xa0EUR</data>'
    """
    return tag("data", number(value, digits), f"{NBSP}{unit}" if unit else None, value=repr(float(value)))


def money(value: float, unit: str) -> Markup:
    """Return one amount in a unit, to the decimals that it deserves."""
    return figure(value, digits(unit, value), unit)


def money_text(value: float, unit: str) -> str:
    """Return one amount in a unit as text, for the alternatives of charts and for terminals.

    >>> money_text(-4.5, "EUR")
    '−4.50\\xa0EUR'
    """
    return f"{number(value, digits(unit, value))}{NBSP}{unit}"


def cost(value: float, unit: str) -> Markup:
    """Return an amount that may be far below the unit's smallest coin.

    >>> cost(0.00315, "EUR"), cost(3e-8, "EUR")
    ('<data value="0.00315">0.00315\\xa0EUR</data>', '<data value="3e-08">&lt;0.000001\\xa0EUR</data>')
    """
    if 0 < value < 1e-6:
        return tag("data", f"<0.000001{NBSP}{unit}", value=repr(value))
    return money(value, unit)


def memory(held: int | None) -> str:
    """Return an amount of memory given in bytes.

    >>> memory(325_287_936), memory(12_500_000_000), memory(None)
    ('325 MB', '12.5 GB', '–')
    """
    if held is None:
        return MISSING
    return f"{held / 1e9:.1f} GB" if held >= 1e9 else f"{held / 1e6:.0f} MB"


def whole(count: int) -> Markup:
    """Return a count."""
    return figure(count, 0)


def percent(share: float) -> str:
    """Return a share in per cent.

    >>> percent(0.1234), percent(0.0004), percent(1.0), percent(0.9999)
    ('12.3%', '<0.1%', '100%', '>99.9%')
    """
    if math.isnan(share):
        return MISSING
    if 0 < share < 0.0005:
        return "<0.1%"
    if 0.9995 <= share < 1:
        return ">99.9%"
    return f"{number(100 * share, 0 if share in (0, 1) else 1)}%"


def factor(value: float) -> str:
    """Return a multiplier.

    >>> factor(1.3149), factor(0.05), factor(12.0), factor(float("inf"))
    ('×1.31', '×0.050', '×12.0', '×∞')
    """
    return f"×{number(value, 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 else 3)}"


def duration(seconds: float) -> str:
    """Return a duration.

    >>> duration(0.00134), duration(0.0421), duration(12.34), duration(75), duration(7260)
    ('1.3 ms', '42 ms', '12.3 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 0.00995:
        return f"{1000 * seconds:.2g} ms"
    if seconds < 0.9995:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


# -------------------------------------------------------------------------------------------------------------- estimates


def has_interval(estimate: Estimate) -> bool:
    """Return whether the estimate has both limits."""
    return not (math.isnan(estimate.low) or math.isnan(estimate.high))


def interval(estimate: Estimate, scale: float = 1.0, missing: str = _TOO_FEW) -> Markup:
    """Return the limits in brackets, or that and why there are none; † marks a tail-limited interval.

    >>> interval(Estimate(2.0, float("nan"), float("nan")))
    '<span class="soft">(no interval: fewer than 6 groups)</span>'
    """
    if not has_interval(estimate):
        return tag("span", f"({missing})", class_="soft")
    value, low, high = scale * estimate.value, scale * estimate.low, scale * estimate.high
    n = digits(estimate.unit, value, low, high)
    mark = tag("a", "†", href="#tail-limited", aria_label="tail-limited") if estimate.tail_limited else None
    return tag("span", "[", figure(low, n), f",{NBSP}", figure(high, n), "]", mark, class_="interval")


def amount(estimate: Estimate, scale: float = 1.0) -> Markup:
    """Return the value and its unit, as precise as its interval allows."""
    values = [scale * v for v in (estimate.value, estimate.low, estimate.high)]
    return figure(values[0], digits(estimate.unit, *values), estimate.unit)


def size(estimate: Estimate) -> Markup:
    """Return the value without its sign, for sentences that say which way it goes.

    >>> size(Estimate(-4.24, -8.1, -0.3, "EUR"))
    '<data value="4.24">4.24\xa0EUR</data>'
    """
    return figure(abs(estimate.value), digits(estimate.unit, estimate.value, estimate.low, estimate.high), estimate.unit)


def with_interval(estimate: Estimate) -> Markup:
    """Return value, unit and interval."""
    return join(amount(estimate), " ", interval(estimate))


def bare(estimate: Estimate) -> Markup:
    """Return value and interval without the unit, for tables that say it once."""
    n = digits(estimate.unit, estimate.value, estimate.low, estimate.high)
    return join(figure(estimate.value, n), " ", interval(estimate, missing="no interval"))


def short(estimate: Estimate) -> str:
    """Return value and limits as text without the unit, for charts.

    >>> short(Estimate(12.4, 8.1, 16.7, "EUR", tail_limited=True))
    '12.40 [8.10, 16.70]†'
    """
    n = digits(estimate.unit, estimate.value, estimate.low, estimate.high)
    if not has_interval(estimate):
        return number(estimate.value, n)
    mark = "†" if estimate.tail_limited else ""
    return f"{number(estimate.value, n)} [{number(estimate.low, n)}, {number(estimate.high, n)}]{mark}"


def rate(estimate: Estimate | None) -> Markup:
    """Return a share and its interval in per cent.

    >>> rate(None), rate(Estimate(0.25, float("nan"), float("nan")))
    ('–', '<data value="0.25">25.0%</data>')
    """
    if estimate is None or math.isnan(estimate.value):
        return join(MISSING)
    parts = [tag("data", percent(v), value=repr(float(v))) for v in (estimate.value, estimate.low, estimate.high)]
    return join(parts[0], tag("span", " [", parts[1], f",{NBSP}", parts[2], "]", class_="interval") if has_interval(estimate) else None)


def anything(value: Any) -> Markup:
    """Return any plain value for a table cell: numbers for people, estimates with intervals, mappings and lists as lines."""
    match value:
        case None:
            return join(MISSING)
        case bool():
            return join("yes" if value else "no")
        case Estimate():
            return with_interval(value)
        case int():
            return whole(value)
        case float():
            return figure(value, digits("", value))
        case dict():
            return join(*(tag("span", f"{plain(str(k))}: ", anything(v), class_="line") for k, v in value.items()))
        case list() | tuple():
            return join(", ".join(map(str, value)))
    return join(str(value))


def listed(names: Iterable[str], last: str = "and") -> str:
    """Return names as a phrase.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    *head, tail = list(names) or [""]
    return f"{', '.join(head)} {last} {tail}" if head else tail
