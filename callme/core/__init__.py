"""The domain: tasks, their parameters, and the decisions about them.

The package does no I/O, reads no clock, and imports only the standard library and attrs: every
decision is a function of its arguments.
"""
