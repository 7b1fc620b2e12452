"""What a case is called on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from makegood import bundle
from makegood.errors import BundleError, CaseError
from makegood.serving.locate import LEDGER, locate, shown

CASE = "case: loans\ndata: {source: x.csv, outcome: y}\ndecision: {unit: EUR, actions: {a: {payoff: 1}, b: {payoff: 0}}}\n"


def test_a_case_is_found_by_its_name_its_file_and_its_bundle(tmp_path: Path) -> None:
    space, file = tmp_path / "space", tmp_path / "case.yaml"
    run = space / "loans" / "20260101-000000-0000"
    (run / "bundle").mkdir(parents=True)
    files = {name: bundle.FileEntry("0" * 64, 1) for name in bundle.LIMITS if name != bundle.MANIFEST}
    made = bundle.Manifest(bundle.FORMAT, "0.1.0", "loans", "2026-01-01T00:00:00+00:00", "deploy", files)
    (run / "bundle" / bundle.MANIFEST).write_bytes(made.sealed())
    (run.parent / "latest").write_text(run.name, encoding="utf-8")
    file.write_text(CASE, encoding="utf-8")
    for named in ("loans", str(file), str(run / "bundle")):
        place = locate(named, space)
        assert (place.case, place.service, place.first) == ("loans", space / "loans" / "service", run / "bundle")
        assert (place.bundle is None) is (named != str(run / "bundle"))


def test_a_built_in_case_is_known_before_it_was_run(tmp_path: Path) -> None:
    place = locate("diagnosis", tmp_path)
    assert place.case == "diagnosis"
    with pytest.raises(CaseError, match="expected a case that was run; makegood run diagnosis"):
        _ = place.first


def test_what_is_nothing_of_that_is_told(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match=r"CASE: got 'nowhere'; expected .* a built-in one; see `makegood cases`"):
        locate("nowhere", tmp_path)
    with pytest.raises(CaseError, match="did you mean 'diagnosis'"):
        locate("diagnose", tmp_path)
    (tmp_path / "manifest.json").write_text("{}", encoding="utf-8")
    with pytest.raises(BundleError, match="format None"):
        locate(str(tmp_path), tmp_path)


def test_the_ledger_is_the_environments_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LEDGER, raising=False)
    place = locate("diagnosis", tmp_path)
    assert place.ledger == f"sqlite:///{tmp_path.resolve()}/diagnosis/service/ledger.sqlite"
    monkeypatch.setenv(LEDGER, "postgresql://u:p@h/d")
    assert place.ledger == "postgresql://u:p@h/d"


def test_a_ledger_is_shown_without_its_password() -> None:
    assert shown("postgresql://u:secret@h/d?password=secret") == "postgresql://h/d"
    assert shown("sqlite:////a/b c.sqlite") == "sqlite:////a/b c.sqlite"
