"""What callme decides, apart from how it is stored, called or served.

Nothing in this package does I/O, reads a clock or imports anything but the
standard library and attrs: every decision is a function of its arguments.
"""
