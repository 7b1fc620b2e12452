"""Settings that hold for every test."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("makegood", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("makegood")
