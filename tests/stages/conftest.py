"""Fixtures of the stages' tests."""

from __future__ import annotations

from tests.databases import postgres, postgres_server

__all__ = ["postgres", "postgres_server"]
