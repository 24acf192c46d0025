"""One claim in, one outcome out: the HTTP calls."""
