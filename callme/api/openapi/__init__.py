"""The OpenAPI document of the HTTP API, built from the bounds that the code checks.

The schemas of parameters are beside their parsers in :mod:`callme.core`; a test compares each
schema with its parser.
"""
