"""The stages of the loop: plain functions that receive values and return values."""
