"""The OpenAPI document of the HTTP API, built of the bounds that the code checks.

What is checked is written by hand, as its errors are for people; ``tests/test_openapi.py``
holds the two together.
"""
