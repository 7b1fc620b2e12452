"""Weights by loss, a veto by money, and no prize for luck."""

from __future__ import annotations

import numpy as np
import pytest

from makegood.contracts import Floats, Ints, Predictive, Probabilities
from makegood.stages.ensemble import ENSEMBLE, WITH_NETWORKS, Contender, choose, clearly_positive, contenders, greedy
from makegood.stages.predictives import blend, losses


def _two(p: Floats) -> Probabilities:
    return Probabilities(("no", "yes"), np.column_stack([1.0 - p, p]))


def _rows(n: int = 2000) -> tuple[dict[str, Predictive], Ints]:
    """Return two candidates that each know one half of the truth, one that knows nothing, and the outcome."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=n), rng.normal(size=n)
    y = (rng.random(n) < 1.0 / (1.0 + np.exp(-a - b))).astype(np.int64)
    sees_a, sees_b = _two(1.0 / (1.0 + np.exp(-a))), _two(1.0 / (1.0 + np.exp(-b)))
    return {"a": sees_a, "b": sees_b, "nothing": _two(np.full(n, 0.5))}, y


def _contender(payoffs: Floats, loss: float) -> Contender:
    return Contender({}, None, _two(np.full(len(payoffs), 0.5)), payoffs, np.full(len(payoffs), loss))


def test_candidates_that_know_different_things_are_mixed() -> None:
    held, y = _rows()
    weights = greedy(held, y)
    assert sum(weights.values()) == pytest.approx(1.0)
    assert weights["a"] == pytest.approx(0.5, abs=0.1)
    assert weights["b"] == pytest.approx(0.5, abs=0.1)
    mixed = blend([held[name] for name in weights], list(weights.values()))
    assert losses(mixed, y).mean() < min(losses(part, y).mean() for part in held.values())


def test_a_candidate_that_only_harms_gets_no_weight() -> None:
    rng = np.random.default_rng(0)
    true = rng.random(2000)
    y = (rng.random(2000) < true).astype(np.int64)
    assert greedy({"wrong": _two(1.0 - true), "right": _two(true)}, y) == {"right": 1.0}


def test_a_single_candidate_has_all_the_weight() -> None:
    held, y = _rows()
    assert greedy({"b": held["b"]}, y) == {"b": 1.0}


def test_contenders_are_the_singles_and_the_mixture_calibrated_and_valued() -> None:
    held, y = _rows()
    paid: list[Predictive] = []

    def payoffs(predictive: Predictive) -> Floats:
        paid.append(predictive)
        return np.zeros(len(y))

    judged = contenders(held, y, np.arange(len(y)) % 5, payoffs, seed=0)
    assert list(judged) == ["a", "b", "nothing", ENSEMBLE]
    assert [c.oof for c in judged.values()] == paid
    assert judged[ENSEMBLE].weights.keys() == {"a", "b"}
    assert judged["a"].losses.mean() < losses(held["a"], y).mean() + 1e-3
    assert judged[ENSEMBLE].losses.mean() < losses(blend([held["a"], held["b"]], [0.5, 0.5]), y).mean()  # averaging two made it too timid


def test_money_decides_when_it_is_clear() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=500)
    judged = {"calm": _contender(base, 0.3), "rich": _contender(base + 0.5 + 0.1 * rng.normal(size=500), 0.6)}
    assert choose(judged) == "rich"


def test_loss_decides_where_the_money_may_be_luck() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=500)
    noise = rng.normal(size=500)
    lucky = base + noise - noise.mean() + 0.03
    judged = {"calm": _contender(base, 0.3), "lucky": _contender(lucky, 0.6)}
    assert lucky.mean() > base.mean()
    assert choose(judged) == "calm"


def test_luck_within_one_cluster_is_luck() -> None:
    base = np.zeros(100)
    one_cluster = np.where(np.arange(100) < 50, 1.0, 0.0)  # fifty rows of one unit: one observation
    judged = {"calm": _contender(base, 0.3), "lucky": _contender(one_cluster, 0.6)}
    assert choose(judged) == "lucky"
    assert choose(judged, clusters=np.array([0] * 50 + list(range(1, 51)))) == "calm"


def test_noise_rarely_beats_the_least_loss() -> None:
    rng = np.random.default_rng(0)
    chosen = []
    for _ in range(400):
        judged = {f"c{i}": _contender(rng.normal(size=200), 0.5 + 0.1 * i) for i in range(4)}
        chosen.append(choose(judged))
    assert np.mean([name == "c0" for name in chosen]) > 0.9


def test_one_row_or_one_cluster_shows_nothing() -> None:
    assert not clearly_positive(np.array([5.0]))
    assert not clearly_positive(np.array([5.0, 6.0]), clusters=np.array([1, 1]))


def test_a_network_competes_only_where_it_clearly_lowers_the_loss() -> None:
    rng = np.random.default_rng(0)
    same, noise = np.zeros(500), rng.normal(size=500)

    def contender(names: str, loss: Floats) -> Contender:
        return Contender(dict.fromkeys(names.split("+"), 1.0), None, _two(np.full(500, 0.5)), same, loss)

    judged = {
        "lines": contender("lines", 0.3 + 0.01 * noise),
        "luckier": contender("luckier", 0.3 + 0.01 * noise + 0.05 * (noise[::-1] - noise.mean()) - 0.001),
        "both": contender("lines+luckier", 0.29 + 0.01 * noise),
    }
    assert choose(judged) == choose(judged, dear=["nothing"]) == "both"
    assert choose(judged, dear=["luckier"]) == "both"  # clearly below
    del judged["both"]
    assert judged["luckier"].losses.mean() < judged["lines"].losses.mean()
    assert choose(judged) == "luckier"
    assert choose(judged, dear=["luckier"]) == "lines"  # not clearly
    assert choose(judged, dear=["luckier", "lines"]) == "luckier"  # nothing else is there


def test_networks_that_are_mixed_in_leave_the_ensemble_without_them_to_compare_with() -> None:
    held, y = _rows()
    knows = np.where(np.random.default_rng(1).random(len(y)) < 0.2, y, 0.5)  # of one row in five, what nobody else does
    net = _two(0.1 + 0.8 * knows)
    judged = contenders({**held, "net": net}, y, np.arange(len(y)) % 5, lambda oof: np.zeros(len(y)), dear=("net",), seed=0)
    assert list(judged) == ["a", "b", "nothing", "net", ENSEMBLE, WITH_NETWORKS]
    assert judged[ENSEMBLE].weights.keys() == {"a", "b"}
    assert "net" in judged[WITH_NETWORKS].weights
    assert choose(judged, dear=("net",)) == WITH_NETWORKS
