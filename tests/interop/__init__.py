"""callme among real servers, clients and proxies: ``tox run -e interop`` (not in CI)."""
