"""Decisions, outcomes and promotions: durable before they are answered, append-only, and evidently so."""
