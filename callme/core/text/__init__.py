"""Text that people write: durations, names of time zones, labels, misspelt words."""
