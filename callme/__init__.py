"""callme: the daemon that calls you back, on the minute."""

__version__ = "1.0.0"
