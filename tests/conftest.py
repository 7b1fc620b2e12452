"""What holds for every test, and the tables for development."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("makegood", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("makegood")

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # a thread that spins takes the core of the test beside it
os.environ["KERAS_BACKEND"] = "torch"  # Keras has one backend in a process; the other is tested in processes of its own

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """What finds a table that does not lie in this repository; the test is skipped where it is absent."""

    def path(name: str) -> Path:
        if not (SHARED / name).exists():
            pytest.skip(f"{name} lies in ../shared/data, which is not here")
        return SHARED / name

    return path
