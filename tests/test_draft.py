"""First case files: what they say of outcome and money, and that a run would start from each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.loops import loans, stock

from makegood import pipeline
from makegood.case import Case
from makegood.draft import Answers, draft
from makegood.errors import CaseError


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def table(tmp_path: Path) -> str:
    path = tmp_path / "my loans.csv"
    loans().assign(day=pd.date_range("2024-01-01", periods=300).strftime("%Y-%m-%d")).to_csv(path, index=False)
    return str(path)


def drafted(table: str, answers: Answers, said: list[str], replies: Iterator[str] | None = None) -> Case:
    """Return the case that was written beside the table; a run would start from it."""
    ask = None if replies is None else (lambda question, default: next(replies) or default)
    path = draft(table, answers, Path(table).with_suffix(".yaml"), ask=ask, say=said.append)
    found = pipeline.check(path)
    assert found.ok, found.problems
    return Case.load(path)


def cell(case: Case, action: str) -> object:
    return case.decision.actions[action].payoff


def test_two_outcomes_get_a_stated_default_at_which_all_and_none_earn_the_same(table: str, said: list[str]) -> None:
    case = drafted(table, Answers("bad"), said)
    assert case.case == "my-loans"
    assert case.decision.unit == "points"
    assert case.data.source == "my loans.csv"
    assert set(case.decision.actions) == {"act", "leave"}
    assert "a default from the data" in said[0]
    assert said[1].startswith("next: makegood run ")
    assert "# time: day " in case.text
    assert "# protected: [sex]" in case.text


def test_a_stated_worth_is_net_benefit(table: str, said: list[str]) -> None:
    case = drafted(table, Answers("bad", worth=4), said)
    assert case.decision.unit == "net benefit"
    assert cell(case, "act") == {"yes": "1", "no": "-1 / 4"}
    assert said[0] == "One found 'yes' is worth 4 needless actions: as you said."


def test_the_outcome_of_interest_can_be_given(table: str, said: list[str]) -> None:
    assert cell(drafted(table, Answers("bad", worth=2, positive="no"), said), "act") == {"no": "1", "yes": "-1 / 2"}


def test_the_rarer_outcome_is_of_interest_when_none_says_so(tmp_path: Path, said: list[str]) -> None:
    loans().assign(bad=lambda t: np.where(t["bad"] == "yes", "b", "a")).to_csv(tmp_path / "t.csv", index=False)
    case = drafted(str(tmp_path / "t.csv"), Answers("bad", worth=2), said)
    assert cell(case, "act") == {"b": "1", "a": "-1 / 2"}


def test_given_payoffs_are_taken_over(table: str, said: list[str]) -> None:
    payoffs = ("approve:no=0.1 * `loan amount`", " approve : yes = -0.5 * `loan amount`", "decline=0")
    case = drafted(table, Answers("bad", unit="EUR", payoffs=payoffs), said)
    assert case.decision.unit == "EUR"
    assert cell(case, "approve") == {"no": "0.1 * `loan amount`", "yes": "-0.5 * `loan amount`"}
    assert cell(case, "decline") == "0"
    assert said[0] == "The payoffs are yours."


def test_of_many_outcomes_the_action_is_to_name_one(tmp_path: Path, said: list[str]) -> None:
    loans().assign(kind=np.array(["a b", "c: d", "东"])[np.arange(300) % 3]).to_csv(tmp_path / "t.csv", index=False)
    case = drafted(str(tmp_path / "t.csv"), Answers("kind"), said)
    assert cell(case, "say a b") == {"a b": "1", "c: d": "0", "东": "0"}
    assert "earns a point where it is right" in said[0]


@pytest.mark.parametrize("scale", [1, 0.37])
def test_of_a_number_the_action_is_to_state_it(tmp_path: Path, said: list[str], scale: float) -> None:
    stock().assign(sold=lambda t: t["sold"] * scale).to_csv(tmp_path / "t.csv", index=False)
    case = drafted(str(tmp_path / "t.csv"), Answers("sold"), said)
    quantity = case.decision.actions["state"].quantity
    assert quantity is not None
    assert quantity.max >= stock()["sold"].max() * scale - 1e-9
    assert cell(case, "state") == "-abs(quantity - outcome)"


def test_money_is_asked_for(table: str, said: list[str]) -> None:
    case = drafted(table, Answers("bad"), said, iter(["call", "wait", "EUR", "80", "-10", "-50", ""]))
    assert case.decision.unit == "EUR"
    assert cell(case, "call") == {"yes": "80", "no": "-10"}
    assert cell(case, "wait") == {"yes": "-50", "no": "0"}


def test_worth_is_asked_for_where_the_unit_is_not_money(table: str, said: list[str]) -> None:
    case = drafted(table, Answers("bad"), said, iter(["treat", "wait", "net benefit", "9"]))
    assert cell(case, "treat") == {"yes": "1", "no": "-1 / 9"}
    assert case.decision.unit == "net benefit"
    assert "9 needless actions: as you said." in said[0]


def test_a_file_elsewhere_is_named_by_its_whole_path(table: str, said: list[str], tmp_path: Path) -> None:
    (tmp_path / "cases").mkdir()
    path = draft(table, Answers("bad"), tmp_path / "cases" / "c.yaml", ask=None, say=said.append)
    assert Case.load(path).data.source == str(Path(table).resolve())
    assert pipeline.check(path).ok


def test_without_a_name_the_case_lies_in_this_folder(table: str, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(table).parent)
    assert draft("my loans.csv", Answers("bad"), None, ask=None, say=said.append) == Path("my-loans.yaml")


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (Answers("bda"), "--outcome: got 'bda'; expected a column of my loans.csv: loan amount, .*did you mean 'day'"),
        (Answers("bad", positive="yse"), "--positive: got 'yse'; expected one of the outcomes: .*did you mean 'yes'"),
        (Answers("bad", worth=-1), "--worth: got '-1'; expected a number above 0; say how many needless actions one found case is worth"),
        (Answers("bad", worth=0), "--worth: got '0'; expected a number above 0"),
        (Answers("bad", worth=float("nan")), "--worth: got 'nan'; expected a number above 0"),
        (
            Answers("bad", payoffs=("approve",)),
            "--payoff: got 'approve'; expected ACTION:OUTCOME=AMOUNT or ACTION=AMOUNT; write for example",
        ),
        (Answers("bad", payoffs=("a:yess=1",)), "--payoff: got 'a:yess=1'; expected an outcome out of no, yes; did you mean 'yes'"),
        (
            Answers("bad", payoffs=("a=1", "a:yes=1")),
            "got 'a:yes=1'; expected one way to give the payoff of 'a'; give a=… or a:OUTCOME=…, once",
        ),
        (
            Answers("bad", payoffs=("a:yes=1", "a=1")),
            "got 'a=1'; expected one way to give the payoff of 'a'; give a=… or a:OUTCOME=…, once",
        ),
        (Answers("bad", payoffs=("a=1", "a=2")), "got 'a=2'; expected one way to give the payoff of 'a'"),
        (Answers("bad", payoffs=("a:yes=1", "a:yes=2")), "got 'a:yes=2'; expected one way to give the payoff of 'a'"),
        (Answers("bad", payoffs=("a:yes=1", "b=0")), "--payoff: got 'a'; expected an amount for each of no, yes; add a:no=…"),
        (Answers("bad", payoffs=("a=1",)), "at least two actions"),
        (Answers("bad", payoffs=("a=1", "b=foo(")), r"decision\.actions\.b\.payoff"),
        (Answers("bad", payoffs=("a=1", "b=amuont")), r"decision\.actions\.b\.payoff: got 'amuont'"),
    ],
)
def test_what_cannot_be_read_is_named_and_nothing_is_written(table: str, answers: Answers, message: str, said: list[str]) -> None:
    with pytest.raises(CaseError, match=message):
        drafted(table, answers, said)
    assert not Path(table).with_suffix(".yaml").exists()


def test_an_answer_that_is_no_number_is_named(table: str, said: list[str]) -> None:
    with pytest.raises(CaseError, match=r"worth.*got 'many'; expected a number"):
        drafted(table, Answers("bad"), said, iter(["", "", "points", "many"]))


def test_a_file_that_is_there_is_not_overwritten(table: str, said: list[str]) -> None:
    drafted(table, Answers("bad"), said)
    with pytest.raises(
        CaseError, match="got 'a file that is there already'; expected a new file; give another name with --out, or remove it"
    ):
        drafted(table, Answers("bad"), said)


def test_a_folder_that_cannot_be_written_is_named(table: str, said: list[str], tmp_path: Path) -> None:
    with pytest.raises(CaseError, match=r"--out: got .*expected a file that can be written"):
        draft(table, Answers("bad"), tmp_path / "absent" / "c.yaml", ask=None, say=said.append)


def test_money_for_a_number_or_many_classes_is_given_by_payoffs(tmp_path: Path, said: list[str]) -> None:
    path = str(tmp_path / "stock.csv")
    stock().to_csv(path, index=False)
    with pytest.raises(
        CaseError, match="--worth, --positive: got 'a number'; expected an outcome with two values; give the money with --payoff"
    ):
        drafted(path, Answers("sold", worth=3), said)
    with pytest.raises(CaseError, match="expected ACTION=AMOUNT, where the amount may use outcome"):
        drafted(path, Answers("sold", payoffs=("act:3=1",)), said)
    case = drafted(path, Answers("sold", unit="EUR", payoffs=("act=outcome - 20", "skip=0")), said)
    assert case.decision.unit == "EUR"
    assert cell(case, "act") == "outcome - 20"
