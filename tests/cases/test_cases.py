"""The built-in cases are real data, read offline from a dependency."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from sklearn.datasets import load_digits

from makegood import cases, pipeline
from makegood.case import Case
from makegood.data.sources import read
from makegood.errors import CaseError, MissingExtra
from makegood.model import load

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", cases.names())
def test_every_case_loads_and_names_its_own_table(name: str) -> None:
    case = cases.load(name)
    assert case.case == name
    assert case.data.source == f"builtin:{name}"
    if isinstance(cases.TABLES[name], cases.Builtin):
        assert case.data.outcome in cases.builtin(name).column_names
    assert cases.TABLES[name].source


def test_diagnosis_is_the_published_table() -> None:
    table = cases.builtin("diagnosis")
    assert (table.num_rows, table.num_columns) == (569, 31)
    outcome = table["diagnosis"].to_pylist()
    assert outcome.count("malignant") == 212
    assert outcome.count("benign") == 357
    assert table["mean radius"][0].as_py() == 17.99


def test_credit_risk_keeps_every_row_and_mends_the_shifted_ones() -> None:
    table = cases.builtin("credit-risk")
    assert table.num_rows == 40_000
    assert set(table["defaulted"].to_pylist()) == {"yes", "no"}
    assert set(table["flag_mobile_phone"].to_pylist()) == {"N"}
    assert min(table["personal_net_income"].to_pylist()) >= 0


def test_digits_are_the_published_images() -> None:
    table = cases.builtin("digits")
    published = load_digits()
    assert table["digit"].to_pylist() == published.target.tolist()
    shades = np.array([list(image) for image in table["image"].to_pylist()])
    assert set(shades.ravel().tolist()) == {round(255 * count / 16) for count in range(17)}
    assert np.array_equal(np.rint(shades * 16 / 255), published.data), "each count of dots keeps a shade of its own"
    assert table.schema.field("image").metadata == {b"shape": b"8,8,1"}


def test_digits_of_a_file_of_arrays_have_the_same_shades(tmp_path: Path) -> None:
    published = load_digits()
    np.savez(tmp_path / "digits.npz", images=published.images, labels=published.target)
    assert read(tmp_path / "digits.npz").table["image"].to_pylist() == cases.builtin("digits")["image"].to_pylist()


def test_the_documented_case_is_the_built_in_one_on_other_data() -> None:
    documented, built_in = Case.load(ROOT / "docs" / "mnist.yaml"), cases.load("digits")
    assert documented.decision == built_in.decision
    assert (documented.data.outcome, documented.data.type) == (built_in.data.outcome, built_in.data.type)
    assert (documented.data.holdout, documented.data.sha256 is None) == ("part", False)


def test_unknown_names() -> None:
    with pytest.raises(
        CaseError,
        match="case: got 'diagnsis'; expected a case file, or one of credit-risk, diagnosis, digits, essay-score, support-intent; did you mean 'diagnosis'",
    ):
        cases.load("diagnsis")
    with pytest.raises(CaseError, match="builtin:nothing"):
        cases.builtin("nothing")


def test_a_missing_package_is_one_line_with_the_command() -> None:
    with pytest.raises(MissingExtra, match=r"data of nowhere: got 'not installed'.*pip install 'makegood\[cases\]'"):
        cases._shipped("nowhere", "x.csv", "cases")


@pytest.mark.slow
def test_digits_are_read_or_sent_to_a_person(tmp_path: Path) -> None:
    case = cases.load("digits")
    short = case.model_copy(update={"train": case.train.model_copy(update={"budget": 8.0, "families": ("linear",)})})
    done = pipeline.run(short, workspace=tmp_path)
    assert done.evaluation is not None
    assert done.report is not None
    assert done.bundle is not None
    e = done.evaluation
    assert (e.verdict, e.gain_over) == ("deploy", "today")
    assert e.baselines["today"].value == pytest.approx(-0.1)
    assert 0.02 < e.shares["person"] < 0.6
    misread = {digit: e.confusion[f"read {digit}"] for digit in map(str, range(10))}
    wrong = sum(n for digit, row in misread.items() for true, n in row.items() if true != digit)
    assert e.value.value == pytest.approx(-3 * wrong / 1797 - 0.1 * e.shares["person"])
    assert '<section id="mistakes">' in done.report.read_text(encoding="utf-8")
    model = load(done.bundle)
    drawn = [image for image, digit in zip(load_digits().images, load_digits().target, strict=True) if digit == 0][:20]
    shades = [np.rint(image * (255 / 16)).astype(np.uint8) for image in drawn]
    files = []
    for shade in shades:
        PIL.Image.fromarray(shade).save(out := io.BytesIO(), "PNG")
        files.append({"image": out.getvalue()})
    actions = [decision.action for decision in model.decide(files)]
    assert actions == [decision.action for decision in model.decide([{"image": shade.tobytes()} for shade in shades])]
    assert actions.count("read 0") + actions.count("person") >= 19
    assert actions.count("read 0") >= 10
