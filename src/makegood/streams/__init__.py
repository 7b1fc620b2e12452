"""Decisions to come, with a known truth: tables in the order of time whose world changes when and how it is said."""
