"""The HTTP client that makes the calls: each takes a claim and returns an outcome."""
