"""File descriptors: how many clients may have, so that calls and the database have theirs."""

from __future__ import annotations

import resource

OWN = 64
"""Descriptors of the daemon itself: database, log, reactor, what libraries open."""
PER_CALL = 4
"""... of a call: a look-up or a connection, others to the same name's further addresses while
the first does not answer, and one that is kept from the call before."""
RUSH = 1024
"""... of clients that come at once, in the place of others that have not gone yet: as many as the
system lets wait at a port."""


def raise_limit(wanted: int) -> int:
    """Let this process open as many files as it wants, or as many as it may.

    :return: how many it may open now.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    allowed = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    except (OSError, ValueError):
        # Some systems have a limit below the one that they tell.
        return soft
    return allowed


def wanted_for(connections: int, concurrency: int) -> int:
    """Return how many descriptors so many clients and calls need."""
    return connections + RUSH + PER_CALL * concurrency + OWN


def share_of_clients(connections: int, concurrency: int, limit: int) -> int:
    """Return how many of the connections that clients may have there are descriptors for.

    Where calls alone could use all of them, a quarter is left to clients, who must be able
    to say what is to be called.

    :param limit: how many files this process may open.
    """
    left = limit - PER_CALL * concurrency - OWN
    return max(1, min(connections, max(left, limit // 4)))


def share_of_a_rush(connections: int, concurrency: int, limit: int) -> int:
    """Return how many clients may come at once in the place of others.

    :param connections: how many there may be.
    :param limit: how many files this process may open.
    """
    return max(0, min(RUSH, limit - PER_CALL * concurrency - OWN - connections))
