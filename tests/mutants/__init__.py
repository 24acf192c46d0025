"""Mutants of callme: small faults planted one at a time, which the tests must notice."""
