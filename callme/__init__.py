"""callme: the daemon that calls you back, on the minute."""

__version__ = "0.1.0"
