"""Decisions to come, with a known truth: tables in the order of time whose world changes when and how it is said."""

from makegood.streams.injected import INJECTED, inject
from makegood.streams.kinds import DRIFTING, KINDS, stream
from makegood.streams.truth import NEVER, Stream

__all__ = ["DRIFTING", "INJECTED", "KINDS", "NEVER", "Stream", "inject", "stream"]
