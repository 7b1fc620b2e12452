"""The sample pages. `sample.py` is run, not imported: tests are no package."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from makegood.report.page import ReportInput

SAMPLE = runpy.run_path(str(Path(__file__).with_name("sample.py")))


@pytest.fixture
def credit() -> ReportInput:
    """A loan case: deploy, two actions, a leak."""
    return SAMPLE["credit"]()


@pytest.fixture
def school() -> ReportInput:
    """A number outcome, refused: no intervals."""
    return SAMPLE["school"]()


@pytest.fixture
def hard() -> ReportInput:
    """A loss, thirty baselines, hostile, long and Chinese names."""
    return SAMPLE["hard"]()


@pytest.fixture
def digits() -> ReportInput:
    """A gallery of mistakes on images."""
    return SAMPLE["digits"]()


@pytest.fixture
def hostile() -> str:
    """A name that tries to become code."""
    return SAMPLE["HOSTILE"]
