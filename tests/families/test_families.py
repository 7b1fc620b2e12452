"""The table of families."""

from __future__ import annotations

import subprocess
import sys

import pytest

from makegood.case import FAMILIES, NETWORKS, TEXT_FAMILIES
from makegood.contracts import Task
from makegood.errors import CaseError
from makegood.families import TABLE, beside_texts, find, joining, joining_images, joining_texts


def test_the_table_holds_the_families_that_a_case_may_name() -> None:
    assert tuple(TABLE) == FAMILIES + TEXT_FAMILIES + NETWORKS


def test_candidates_come_in_the_order_asked_for() -> None:
    found = find(["linear", "constant"])
    assert [candidate.name for candidate in found] == ["linear", "constant"]
    assert [type(candidate.make(Task("number"))).__name__ for candidate in found] == ["Linear", "Constant"]


def test_an_unknown_family_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(CaseError) as error:
        find(["lightgmb"])
    expected = "train.families: got 'lightgmb'; expected some of constant, linear, lightgbm, ngrams, mlp, transformer, cnn, resnet, vit, encoder; did you mean 'lightgbm'?"
    assert str(error.value) == expected


def test_a_network_without_torch_names_the_missing_extra() -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from makegood.errors import MissingExtra\n"
        "from makegood.families import find\n"
        "try: find(['mlp'])\n"
        "except MissingExtra as error: print(error)"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    assert out == "train.families: got 'mlp'; expected torch, which trains networks; pip install 'makegood[deep]'"


@pytest.mark.parametrize(
    ("seconds", "rows", "columns", "joins"),
    [
        (1.09, 1000, 20, True),  # German credit, ten folds by five in a minute
        (0.5, 1000, 20, False),
        (6.0, 30_000, 23, False),  # Taiwan's cards in a minute: a third of what a fit would take
        (12.0, 30_000, 23, True),
        (30.0, 30_000, 1_000, False),  # ever more columns cost
        (60.0, 30_000, 1_000, True),
    ],
)
def test_a_network_joins_auto_where_it_gets_half_of_its_time(seconds: float, rows: int, columns: int, joins: bool) -> None:
    assert joining(seconds, rows, columns) == (("mlp",) if joins else ())


@pytest.mark.parametrize(
    ("seconds", "rows", "shape", "joins"),
    [
        (2.2, 1797, (8, 8, 1), True),  # the case digits: ten folds by five in two minutes
        (1.1, 1797, (8, 8, 1), False),
        (30.0, 60_000, (28, 28, 1), True),
        (15.0, 60_000, (28, 28, 1), False),
        (60.0, 1797, (3, 8, 1), False),  # smaller than its filters
    ],
)
def test_the_articles_network_joins_where_rows_are_images(seconds: float, rows: int, shape: tuple[int, int, int], joins: bool) -> None:
    assert joining_images(seconds, rows, shape) == (("cnn",) if joins else ())


def test_without_torch_none_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("makegood.families.find_spec", lambda name: None)
    assert joining(1e6, 100, 2) == joining_images(1e6, 100, (8, 8, 1)) == ()
    assert joining_texts(1e6, 100, 64) == ("ngrams",)


@pytest.mark.parametrize(
    ("seconds", "rows", "tokens", "joins"), [(60.0, 10_000, 32, False), (600.0, 10_000, 32, True), (20.0, 500, 8, True)]
)
def test_n_grams_join_where_there_is_a_text_and_an_encoder_where_there_is_time(seconds: float, rows: int, tokens: int, joins: bool) -> None:
    assert joining_texts(seconds, rows, tokens) == (("ngrams", "encoder") if joins else ("ngrams",))


def test_families_for_numbers_are_refused_where_a_text_is_all_that_there_is() -> None:
    candidates = find(["constant", "linear", "ngrams", "lightgbm"])
    with pytest.raises(CaseError) as error:
        beside_texts(candidates, others=False)
    expected = "train.families: got 'linear, lightgbm'; expected families that read texts: there is no other column to learn from; "
    assert str(error.value) == expected + "name ngrams, encoder or auto"
    kept = beside_texts(candidates, others=True)
    kinds = [type(candidate.make(Task("number"))).__name__ for candidate in kept]
    assert kinds == ["Constant", "OtherColumns", "NGrams", "OtherColumns"]
