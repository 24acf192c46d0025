"""The domain: tasks, their parameters, and the decisions about them.

Nothing in this package does I/O or reads a clock, and nothing but the standard library and attrs
is imported: every decision is a function of its arguments.
"""
