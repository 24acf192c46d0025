"""Texts that people write: durations, names of time zones, misspelt words."""
