"""A client of callme for Python, sync and async, and tools for the endpoints that callme calls."""

from .async_client import AsyncClient
from .documents import Attempt, BatchResult, Filters, Parameters, Task, When
from .errors import (
    CallmeError,
    Conflict,
    ConnectionFailed,
    InvalidRequest,
    NotFound,
    ProblemError,
    Unauthorized,
    Unavailable,
    WaitTimeout,
)
from .repeats import Repeats
from .requests import definition
from .sync_client import Client
from .webhooks import InvalidSignature, verify

__all__ = [
    "AsyncClient",
    "Attempt",
    "BatchResult",
    "CallmeError",
    "Client",
    "Conflict",
    "ConnectionFailed",
    "Filters",
    "InvalidRequest",
    "InvalidSignature",
    "NotFound",
    "Parameters",
    "ProblemError",
    "Repeats",
    "Task",
    "Unauthorized",
    "Unavailable",
    "WaitTimeout",
    "When",
    "definition",
    "verify",
]
