"""callme's tests: each module tests the one of its name."""
