"""Decorators for endpoints, one module per framework: they handle each call of callme once."""

from .store import MemoryStore, OnceStore, SqliteStore

__all__ = ["MemoryStore", "OnceStore", "SqliteStore"]
