"""Bundles of whole models: what comes back is what was packed, and whoever changed anything in between is refused."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from tests import bundles
from tests.bundles import ROW, bits, table

from makegood import bundle
from makegood.data import prepare
from makegood.economics.payoff import Payoffs
from makegood.economics.policy import Policy
from makegood.errors import BundleError, DataError
from makegood.model import Model, Raw, Scorer, load, pack, verify
from makegood.monitoring.reference import refer


@pytest.fixture(scope="module")
def loans() -> Model:
    return bundles.loans()


@pytest.fixture(scope="module")
def bakery() -> Model:
    return bundles.bakery()


@pytest.fixture(scope="module")
def rows() -> Raw:
    return prepare.raw_columns(table(60, seed=9)[0])


@pytest.fixture(scope="module")
def packed(loans: Model, rows: Raw, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loans") / "bundle"
    pack(loans, folder, rows=rows, card="# Loans\n")
    return folder


@pytest.fixture(scope="module")
def model(packed: Path) -> Model:
    return load(packed)


# ---------------------------------------------------------------------------------------------------------------- bundles


def test_a_loaded_model_decides_as_the_packed_one(loans: Model, model: Model, rows: Raw) -> None:
    ours, theirs = loans.decide_columns(rows), model.decide_columns(rows)
    assert ours.expected.tobytes() == theirs.expected.tobytes()
    assert ours.promise.tobytes() == theirs.promise.tobytes()
    assert ours.reasons == theirs.reasons
    assert model.verdict == "deploy"
    assert model.case == loans.case


def test_a_number_model_survives_packing(bakery: Model, rows: Raw, tmp_path: Path) -> None:
    model = pack(bakery, tmp_path / "b", rows=rows, card="")
    assert bits(replace(model.decide(ROW), model="")) == bits(bakery.decide(ROW))
    assert verify(tmp_path / "b") == ()


def test_golden_rows_hold_data_and_edges(packed: Path) -> None:
    golden = json.loads((packed / "golden.json").read_bytes())
    assert len(golden["rows"]) == len(golden["option"]) == 33
    assert golden["rows"][-1].keys() == {"amount", "months"}
    assert {json.dumps(row.get("region")) for row in golden["rows"]} >= {"null", "1e+300", "[]", '"\\u2203 never seen"'}


def test_packing_over_something_fails(loans: Model, rows: Raw, packed: Path) -> None:
    with pytest.raises(BundleError, match="something that exists"):
        pack(loans, packed, rows=rows, card="")


def test_packing_needs_a_row_with_a_payoff(loans: Model, rows: Raw, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no row on which every payoff is a number"):
        pack(loans, tmp_path / "b", rows=dict(rows) | {"amount": [None] * 60}, card="")
    assert not any(tmp_path.iterdir())


def graph(*nodes: Any, width: int = 2, name: str = "features", p: int = 1) -> bytes:
    made = helper.make_graph(
        list(nodes), "g", [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, p])],
        [helper.make_tensor_value_info("raw", TensorProto.FLOAT, [None, width])],
    )  # fmt: skip
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def beyond(p: int) -> bytes:
    """Return a graph that loads, and fails when it runs: it takes a feature that is not there."""
    index = helper.make_node("Constant", [], ["i"], value=helper.make_tensor("i", TensorProto.INT64, [2], [0, 10**6]))
    return graph(index, helper.make_node("Gather", ["features", "i"], ["raw"], axis=1), p=p)


def test_packing_refuses_a_scorer_that_a_bundle_may_not_hold(loans: Model, rows: Raw, tmp_path: Path) -> None:
    custom = graph(helper.make_node("Shell", ["features"], ["raw"], domain="evil"))
    for scorer, message in (
        (custom, "domain 'evil'"),
        (graph(helper.make_node("Identity", ["features"], ["raw"])), r"expected features \(n, \d+\) float → raw \(n, 2\)"),
        (graph(helper.make_node("Nonsense", ["features"], ["raw"])), "a graph that ONNX Runtime can run"),
        (b"\x08\x09", "a graph that ONNX Runtime can run"),
        (beyond(len(loans.transform.features)), "a graph that scores every row"),
    ):
        with pytest.raises(BundleError, match=message):
            pack(replace(loans, scorer=Scorer(scorer, 8)), tmp_path / "b", rows=rows, card="")
    assert not any(tmp_path.iterdir())


# --------------------------------------------------------------------------------------------------------------- tampering


def forged(folder: Path, edits: dict[str, Callable[[Any], Any]], target: Path) -> Path:
    """Return a copy of a bundle with some files edited and every hash computed anew, as one who knows the format would."""
    shutil.copytree(folder, target)
    for name, edit in edits.items():
        data = (target / name).read_bytes()
        if name.endswith(".json"):
            value = json.loads(data)
            changed = edit(value)
            data = json.dumps(value if changed is None else changed).encode()
        else:
            data = edit(data)
        (target / name).write_bytes(data)
    manifest = json.loads((target / bundle.MANIFEST).read_bytes())
    for name, entry in manifest["files"].items():
        data = (target / name).read_bytes()
        entry.update(sha256=bundle.sha256(data), bytes=len(data))
    (target / bundle.MANIFEST).write_bytes(
        bundle.Manifest(**{**manifest, "files": {k: bundle.FileEntry(**e) for k, e in manifest["files"].items()}}).sealed()
    )
    return target


def put(*path: Any, value: Any) -> Callable[[Any], None]:
    """Return an edit that sets one value deep inside."""

    def edit(whole: Any) -> None:
        for key in path[:-1]:
            whole = whole[key]
        whole[path[-1]] = value

    return edit


def drop(*path: Any) -> Callable[[Any], None]:
    """Return an edit that takes one value out."""

    def edit(whole: Any) -> None:
        for key in path[:-1]:
            whole = whole[key]
        whole.pop(path[-1])

    return edit


def scaled(*path: Any, by: float) -> Callable[[Any], None]:
    def edit(whole: Any) -> None:
        for key in path[:-1]:
            whole = whole[key]
        whole[path[-1]] *= by

    return edit


class Boom:
    """Tells if it was ever unpickled."""

    ran = False

    def __reduce__(self) -> tuple[object, ...]:
        return setattr, (Boom, "ran", True)


FORGERIES: list[tuple[str, Any, str]] = [
    ("golden.json", put("rows", value=[]), "no rows"),
    ("golden.json", put("rows", 0, "amount", value=7.0), "row 1, "),
    ("golden.json", scaled("features", 0, 0, by=1.001), "row 1, feature"),
    ("golden.json", scaled("raw", 3, 1, by=1.001), "row 4, raw score"),
    ("golden.json", scaled("predictive", 2, 0, by=0.999), "row 3, predictive"),
    ("golden.json", scaled("expected", 1, 0, by=1.01), "row 2, expected payoff"),
    ("golden.json", put("promise", 0, value=99_999.0), "row 1, promise"),
    ("golden.json", put("option", 0, value="give away"), "row 1, action"),
    ("golden.json", drop("option", -1), "actions"),
    ("golden.json", drop("features", -1), "features: got 'shape"),
    ("golden.json", drop("features", 0, -1), "inhomogeneous"),
    ("golden.json", put("features", 0, 0, value="x"), "Expected `float`"),
    ("golden.json", put("loader", value="os.system"), "unknown field `loader`"),
    ("golden.json", drop("raw"), "missing required field `raw`"),
    ("golden.json", put("rows", 0, value=3), "Expected `object`"),
    ("golden.json", put("rows", 0, "amount", value=None), "amount missing"),
    ("case.json", put("case", value="other"), "got 'other'; expected loans"),
    ("case.json", drop("case"), "KeyError"),
    ("case.json", lambda c: [1], "TypeError"),
    ("transform.json", scaled("columns", 2, "scale", by=2.0), "feature"),
    ("transform.json", put("columns", 0, "name", value="other"), "KeyError"),
    ("transform.json", put("columns", 0, "reads", value="pickle"), "bundle"),
    ("transform.json", put("columns", 0, "__class__", value="os.system"), "unexpected keyword"),
    ("transform.json", drop("columns", -1), "scorer.onnx"),
    ("transform.json", lambda t: t["columns"].clear(), "scorer.onnx"),
    ("transform.json", put("columns", 2, "scale", value="one"), "ValueError"),
    ("transform.json", lambda t: t["columns"].reverse(), "feature"),
    ("scorer.json", put("rows", value=0), "bundle's contents"),
    ("scorer.json", put("rows", value=-5), "bundle's contents"),
    ("scorer.json", put("kind", value="anything"), "kind"),
    ("scorer.json", put("kind", value="number"), "scorer.onnx"),
    ("scorer.json", put("classes", value=["yes", "no", "maybe"]), "scorer.onnx"),
    ("scorer.json", put("classes", value=["a", "b"]), "bundle's contents"),
    ("scorer.json", put("calibrator", value={"kind": "eval", "parameters": [], "floor": 0, "losses": {}}), "calibrator.kind"),
    ("scorer.json", put("calibrator", value={"kind": "temperature", "parameters": [[3.0]], "floor": 1e-6, "losses": {}}), "predictive"),
    ("scorer.json", put("calibrator", value={"kind": "beta", "parameters": [[1.0]], "floor": 1e-6, "losses": {}}), "ValueError"),
    ("scorer.json", drop("calibrator"), "KeyError"),
    ("policy.json", put("payoffs", "actions", 2, "payoff", value="1e6"), "expected payoff"),
    ("policy.json", put("payoffs", "actions", 2, "payoff", value="__import__('os').system('true')"), "CaseError"),
    ("policy.json", put("payoffs", "actions", 2, "payoff", value="(" * 5000 + "0" + ")" * 5000), "Error"),
    ("policy.json", put("payoffs", "actions", 2, "payoff", value="colour"), "colour"),
    ("policy.json", put("payoffs", "actions", 2, "quantity", value={"min": 0, "max": 1e12, "step": 1}), "1e+12 steps"),
    ("policy.json", put("payoffs", "actions", 2, "quantity", value={"min": 0, "max": 1, "step": 0}), "ZeroDivisionError"),
    ("policy.json", put("payoffs", "actions", 2, "quantity", value={"min": 0, "max": 1, "step": 1}), "golden.json"),
    ("policy.json", put("prices", value=[1e6]), "action|bundle"),
    ("policy.json", put("prices", value=[]), "ValueError"),
    ("policy.json", put("promise", "slope", value=2.0), "promise"),
    ("policy.json", put("promise", "certain", value=["x"]), "ValueError"),
    ("policy.json", drop("limits"), "KeyError"),
    ("policy.json", drop("payoffs", "actions", -1), "golden.json"),
    ("background.json", lambda b: [[1]], "AttributeError"),
    ("background.json", put("amount", value=3), "TypeError"),
    ("background.json", drop("age", -1), "columns of"),
    ("background.json", put("amount", value=[None] * 64), "background"),
    ("scorer.onnx", lambda d: pickle.dumps(Boom()), "ONNX model"),
    ("scorer.onnx", lambda d: graph(helper.make_node("Identity", ["features"], ["raw"])), "scorer.onnx"),
    ("scorer.onnx", lambda d: graph(helper.make_node("Shell", ["features"], ["raw"], domain="evil")), "domain 'evil'"),
    ("scorer.onnx", lambda d: d[:-40], "ONNX|cut off"),
    ("card.md", lambda d: d, ""),
]


@pytest.mark.parametrize(("name", "edit", "message"), FORGERIES[:-1])
def test_a_forger_who_recomputes_every_hash_is_refused(packed: Path, tmp_path: Path, name: str, edit: Any, message: str) -> None:
    folder = forged(packed, {name: edit}, tmp_path / "forged")
    with pytest.raises(BundleError) as caught:
        load(folder)
    told = str(caught.value)
    assert any(part in told for part in message.split("|")), told
    assert all(p.where and p.expected and p.next for p in caught.value.problems)
    assert verify(folder) == caught.value.problems or {p.severity for p in verify(folder)} == {"error", "warning"}
    assert not Boom.ran


def test_the_forger_who_changes_nothing_is_not(packed: Path, tmp_path: Path) -> None:
    assert load(forged(packed, {"card.md": FORGERIES[-1][1]}, tmp_path / "same")).id != ""


@pytest.mark.parametrize("name", sorted(bundle.LIMITS.keys() - bundle.OPTIONAL))
def test_any_flipped_bit_of_a_real_bundle_is_refused(packed: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(packed, tmp_path / "b")
    rng = np.random.default_rng(len(name))
    data = (packed / name).read_bytes()
    for at in rng.integers(0, len(data), 5):
        flipped = bytearray(data)
        flipped[at] ^= 1 << int(rng.integers(8))
        (tmp_path / "b" / name).write_bytes(flipped)
        with pytest.raises(BundleError):
            load(tmp_path / "b")


def test_numbers_off_by_the_last_bits_are_a_warning_and_load(packed: Path, tmp_path: Path) -> None:
    folder = forged(packed, {"golden.json": scaled("expected", 1, 0, by=1 + 1e-12)}, tmp_path / "near")
    (finding,) = verify(folder)
    assert finding.severity == "warning"
    assert finding.next == "nothing: this processor rounds otherwise"
    load(folder)


def test_another_action_that_pays_the_same_is_no_forgery(loans: Model, rows: Raw, tmp_path: Path) -> None:
    payoffs = Payoffs.of({"a": {"payoff": "1"}, "b": {"payoff": "1"}, "c": {"payoff": "0"}}, "EUR", ("no", "yes"))
    pack(replace(loans, policy=Policy(payoffs)), tmp_path / "b", rows=rows, card="")
    load(forged(tmp_path / "b", {"golden.json": put("option", 0, value="b")}, tmp_path / "tie"))
    with pytest.raises(BundleError, match="row 1, action: got 'a'; expected c"):
        load(forged(tmp_path / "b", {"golden.json": put("option", 0, value="c")}, tmp_path / "worse"))


def test_an_intact_bundle_has_no_findings(packed: Path) -> None:
    assert verify(packed) == ()


def test_verify_tells_what_load_would_refuse(tmp_path: Path) -> None:
    (problem,) = verify(tmp_path / "nowhere")
    assert problem.got == "No such file or directory"


# -------------------------------------------------------------------------------------------------------------- reference


def test_a_reference_travels_in_the_bundle_and_a_forged_one_is_refused(loans: Model, rows: Raw, tmp_path: Path) -> None:
    made = refer({"amount": np.arange(40.0)}, np.arange(40.0))
    folder = tmp_path / "b"
    assert pack(replace(loans, reference=made), folder, rows=rows, card="").reference == made
    forgeries = [
        (put("columns", 0, "bins", 0, "effective", value=1e9), "worth more rows"),
        (put("columns", 0, "edges", 0, value=["x"]), "ValidationError"),
        (put("n", value=0), "without rows"),
        (drop("promise"), "missing required field"),
        (lambda r: [r], "ValidationError"),
    ]
    for i, (edit, says) in enumerate(forgeries):
        with pytest.raises(BundleError, match=says):
            load(forged(folder, {"reference.json": edit}, tmp_path / f"forged{i}"))


def test_a_bundle_of_an_earlier_version_has_no_reference(packed: Path) -> None:
    assert load(packed).reference is None
