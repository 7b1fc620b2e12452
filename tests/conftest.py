"""Settings that hold for every test."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("makegood", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("makegood")

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # a thread that spins takes the core of the test beside it
os.environ["KERAS_BACKEND"] = "torch"  # Keras has one backend in a process; the other is tested in processes of its own
