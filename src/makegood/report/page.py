"""The page of a run: one self-contained HTML file, which a manager reads first and an engineer reads on.

It needs no network and no script: styles and images are inside, charts are inline SVG, and a content security policy says so to the
browser.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from makegood.contracts import Evaluation, Finding, Mistakes
from makegood.report import evidence, gallery, guarantee, money, optimised, rated, verdict
from makegood.report.document import document
from makegood.report.markup import Markup, join, tag

if TYPE_CHECKING:
    from makegood.economics.variants import Optimised
    from makegood.trust.fairness import Group


@dataclass(frozen=True)
class ReportInput:
    """What a page is made of.

    `case` is `Case.to_json()` and `case_text` the file as the user wrote it. `fairness` compares protected groups. `seconds` are
    by stage, `hashes` by what was hashed. `mistakes` are those on images, None where there are no images. `notes` say what is simulated
    or injected: each stands at the top of the page. `optimised` is what variants of the model came to, None where none were tried.
    """

    case: Mapping[str, Any]
    case_text: str
    evaluation: Evaluation
    run: str
    findings: Sequence[Finding] = ()
    split: Mapping[str, Any] = field(default_factory=dict)
    mistakes: Mistakes | None = None
    fairness: Sequence[Group] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    optimised: Optimised | None = None


def render(report: ReportInput) -> str:
    """Return the page as HTML."""
    name = str(report.case.get("case", "case"))
    sections = [s for s in _sections(report) if s]
    title = f"{name}: {'deploy' if report.evaluation.verdict == 'deploy' else 'do not deploy'} · makegood"
    return document(title, ("Verdict", _title(report, name)), sections, f"run {report.run}")


def _title(report: ReportInput, name: str) -> Markup:
    about = str(report.case.get("about", ""))
    return join(
        tag("header", tag("p", "makegood", class_="soft"), tag("h1", name), tag("p", about, class_="about") if about else None),
        verdict.alerts(report.evaluation, report.findings, report.notes),
        verdict.banner(report.evaluation),
    )


def _sections(report: ReportInput) -> list[money.Section | None]:
    evaluation, case = report.evaluation, report.case
    outcome = str(case.get("data", {}).get("outcome", "outcome"))
    protected = case.get("data", {}).get("protected", ())
    return [
        money.worth(evaluation),
        money.payoffs(evaluation, outcome),
        money.curves(evaluation),
        money.promises(evaluation),
        guarantee.guarantee(evaluation),
        evidence.actions(evaluation, case.get("decision", {}), outcome),
        gallery.mistakes(report.mistakes, outcome),
        evidence.drivers(evaluation),
        evidence.groups(evaluation, report.fairness, protected),
        rated.ratings(evaluation, str(case.get("data", {}).get("scale", ""))),
        evidence.metrics(evaluation),
        optimised.variants(report.optimised),
        evidence.data(evaluation, report.findings, report.split),
        evidence.making(evaluation, report.seconds, report.hashes, report.versions, report.case_text),
    ]
