"""The checker of the promise, which observes the daemon from outside only.

It observes requests and responses of clients, calls to endpoints, and the result of
``GET /status`` at the end. The promise, in the words of the contract:

- No acknowledged task is lost: it exists under its key until its client removes it.
- No call starts before ``trigger_at``, and none ``max_delay`` minutes or more after it.
- No task is called more than ``1 + retry`` times for each put or move, nor twice in one
  attempt, nor at a time at which it does not exist; each call is recorded.
- The calls in flight do not exceed ``--concurrency`` and ``--per-host``.
- No call starts to a paused host a second after the response to the request that paused it. In
  no minute do more calls start than ``max_per_minute``, but for another batch after a restart.
- A task is called on its minute unless a fault or the settings of its own host prevent it.
- Every task ends: ``succeeded`` with a response of its endpoint, or ``failed`` with a reason
  and a detail, and not before its time or its attempts are used up.
- Every end with a notification URL has a notification.
- A daemon that is asked to end records each status that it has received, and calls what it cuts
  off interrupted.
- In a fleet, no task is called by two daemons at a time unless the first has been without the
  database for so long that it counts as dead. Then its record is rejected. A daemon sends a
  request only while it has the claim.
- The claims of a daemon that died are taken over in time. Limits and pauses hold for a whole fleet.
- A task that is moved or replaced is called as promptly as one that is put, and can be moved as
  long as ``max_delay`` allows.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from .endpoints import Seen
from .history import History
from .hosts import HostRules
from .token import Token

ENDS = ("succeeded", "failed")
REASONS = (
    "unexpected_status",
    "timeout",
    "connection_failed",
    "too_late",
    "forbidden_address",
    "interrupted",
)
SOON = 2.0
"""Seconds within which a due task is called if no fault prevents it."""


class Checker:
    """An observer that collects breaches of the promise.

    :ivar broken: a sentence for each breach.
    :ivar only_stops_interrupt: whether nothing but an orderly stop ends calls without a status.
    :ivar skew: the most seconds by which the clock of a daemon is wrong.
    """

    def __init__(self, history: History) -> None:
        self.history = history
        self.tokens: dict[int, Token] = {}
        self.names: dict[str, list[Token]] = {}
        self.requests = 0
        self.unseen = 0
        self.only_stops_interrupt = False
        self.skew = 0.0
        self.broken: list[str] = []
        self._numbers: set[tuple[int, int]] = set()
        self.hosts = HostRules()

    def breaks(self, text: str) -> None:
        self.broken.append(f"{self.history.stamp()} {text}")

    def of(self, name: str, place: int | None = None) -> list[Token]:
        """Return the tokens of a name, or those that may exist at one of its places."""
        tokens = self.names.get(name, [])
        return [one for one in tokens if place is None or place in one.places]

    # Clients

    def sends(self, token: Token, place: int | None) -> None:
        """Note that a token is about to be put; ``place`` is ``None`` if the daemon chooses it."""
        if token.number not in self.tokens:
            self.tokens[token.number] = token
            self.names.setdefault(token.name, []).append(token)
        if place is None:
            token.loose += 1
        elif place not in token.places:
            token.placed[place] += 1
        token.places.add(place)

    def stands(self, token: Token, place: int, expected: bool = True) -> None:
        """Note that a token certainly exists at a place, and so no other token does."""
        if expected and place not in token.places and not token.loose:
            self.breaks(f"t{token.number} exists at {place}, where it cannot be")
        for other in self.of(token.name, place):
            if other is not token:
                self.is_gone(other, place, lost="another task has its place")
        token.places = {place}
        if token.since is None:
            token.since, token.moved_after = self.history.elapsed(), None

    def was_moved(self, token: Token, asked_at: float) -> None:
        """Note that a token was moved by a request that was sent at a moment (monotonic)."""
        token.moved, token.since, token.moved_after = True, None, None
        if len(token.places) == 1 and None not in token.places and not token.loose:
            token.since, token.moved_after = self.history.elapsed(), asked_at

    def is_gone(self, token: Token, place: int, *, lost: str = "", taken: bool = False) -> None:
        """Note that a token does not exist at a place.

        :param lost: the reason for a loss, if it certainly existed there.
        :param taken: whether a client removed it just now.
        """
        if place not in token.places:
            return
        certain = token.places == {place} and not token.loose
        if certain and not taken and not self.may_be_purged(token, place):
            self.breaks(f"t{token.number} is lost: {token.name}@{place}: {lost}")
        token.places = (token.places - {place}) | ({None} if taken else set())
        token.places = token.places or {None}
        token.since, token.removed = None, token.removed or taken
        if taken and token.places == {None}:
            self._has_no_call_in_flight(token, place)

    def may_be_gone(self, token: Token) -> None:
        """Note that a token may no longer exist."""
        token.places.add(None)
        token.since, token.removed = None, True

    def _has_no_call_in_flight(self, token: Token, place: int) -> None:
        for seen in token.requests:
            in_flight = seen.open and seen.process.alive and not seen.may_be_orphaned
            if in_flight and seen.trigger_at == place:
                self.breaks(f"t{token.number} was removed from {place} during its call")

    def may_be_purged(self, token: Token, place: int) -> bool:
        """Return whether a finished task may have been purged."""
        days = self.history.retention
        return bool(days) and self.history.latest_wall >= place + days * 86_400

    # Endpoints

    def on_request(self, seen: Seen) -> None:
        """Check a request on arrival."""
        self.requests += 1
        for breach in self.hosts.breaches(seen):
            self.breaks(breach)
        if seen.token < 0:
            if -seen.token not in self.tokens:
                self.breaks(f"a notification of t{-seen.token}, which no client put")
            return
        token = self.tokens.get(seen.token)
        if token is None:
            self.breaks(f"a request for t{seen.token}, which no client put")
            return
        token.requests.append(seen)
        what = f"t{token.number} attempt {seen.number} for {seen.key}"
        self.history.say(f"endpoint sees {what}")
        if seen.key != f"{token.name}@{seen.trigger_at}":
            self.breaks(f"{what} has the trigger_at {seen.trigger_at}")
        if (early := seen.trigger_at - min(seen.asked_at, seen.own_asked_at)) > 0:
            self.breaks(f"{what} is early by {early:.3f} s")
        if seen.at + seen.process.skew >= token.expires_at(seen.trigger_at):
            self.breaks(f"{what} is past max_delay")
        if seen.trigger_at not in token.places and not (token.loose or seen.may_be_orphaned):
            self.breaks(f"{what}, where it does not exist")
        self._calls_at_once(token, seen, what)
        if (token.number, seen.number) in self._numbers:
            self.breaks(f"{what} is made twice")
        self._numbers.add((token.number, seen.number))
        self._count(token)

    def _calls_at_once(self, token: Token, seen: Seen, what: str) -> None:
        """Check that no other call of a task is in flight, unless its claim may be lost."""
        for other in token.requests[:-1]:
            if other.open and other.process.alive and other.trigger_at == seen.trigger_at:
                min(other, seen, key=lambda one: one.number).superseded = True
                if not (other.may_be_orphaned or seen.may_be_orphaned):
                    self.breaks(f"{what}, while attempt {other.number} is in flight")

    def _count(self, token: Token) -> None:
        if token.loose:
            total = (sum(token.placed.values()) + token.loose) * token.each
            if len(token.requests) > total:
                self.breaks(f"t{token.number} was called {len(token.requests)} times, not {total}")
            return
        for place, calls in Counter(seen.trigger_at for seen in token.requests).items():
            allowed = token.placed[place] * token.each
            if calls > allowed:
                self.breaks(f"t{token.number} was called {calls} times at {place}, not {allowed}")

    # End

    def finish(self, tasks: list[dict[str, Any]], unreached: int) -> None:
        """Check the result of ``GET /status`` at the end, with all details of each task.

        :param unreached: the number of calls that a fault stopped before their request.
        """
        found: dict[int, list[dict[str, Any]]] = {}
        notices = []
        for task in tasks:
            number = int(task["callback"].rpartition("/")[2])
            if number < 0:
                notices.append(json.loads(task["payload"]))
                continue
            found.setdefault(number, []).append(task)
        if unknown := set(found) - set(self.tokens):
            self.breaks(f"tasks that no client put: {sorted(unknown)}")
        for token in self.tokens.values():
            standing = found.get(token.number, [])
            if len(standing) > 1:
                self.breaks(f"t{token.number} exists twice: {[one['task'] for one in standing]}")
            for task in standing:
                self._judge(token, task)
            certain = None not in token.places and not token.loose
            if certain and not standing and not self.may_be_purged(token, token.standing[0]):
                self.breaks(f"t{token.number} is lost: {token.name}, placed at {token.places}")
            self._count(token)
            if len(standing) == 1:
                self._in_time(token, standing[0]["attempts"])
        self._are_told(found, notices)
        if self.unseen > unreached:
            self.breaks(f"{self.unseen} calls failed, {unreached} had a reason to")

    def _are_told(
        self, found: dict[int, list[dict[str, Any]]], notices: list[dict[str, Any]]
    ) -> None:
        """Check that each end with a notification URL has a notification."""
        ends = {(one["task"], one["state"], one["finished_at"]) for one in notices}
        for tasks in found.values():
            for task in tasks:
                end = (task["task"], task["state"], task["finished_at"])
                if task["on_failure"] and task["state"] in ENDS and end not in ends:
                    self.breaks(f"an end has no notification: {end}")

    def _judge(self, token: Token, task: dict[str, Any]) -> None:
        what, place = f"t{token.number} {task['task']}", int(task["trigger_at"])
        state, reason, attempts = task["state"], task["reason"], task["attempts"]
        if place not in token.places and not token.loose:
            self.breaks(f"{what} exists where it cannot: {token.places}")
        if state not in ENDS:
            self.breaks(f"{what} has not ended: it is {state}, attempts {attempts}")
            return
        if state == "failed" and (reason not in REASONS or not task["detail"].strip()):
            self.breaks(f"{what} failed without a reason: {reason} {task['detail']!r}")
        if state == "succeeded" and reason is not None:
            self.breaks(f"{what} succeeded with a reason: {reason}")
        if not task["finished_at"]:
            self.breaks(f"{what} has no finished_at")
        if task["attempts_used"] > token.each:
            self.breaks(f"{what} used {task['attempts_used']} attempts, not {token.each}")
        self._attempts(token, what, attempts)
        if state == "succeeded":
            status = attempts[-1]["status"] if attempts else None
            if status is None or not token.expects(status):
                self.breaks(f"{what} succeeded with the status {status}")
        else:
            self._failed(token, task, what, place)

    def _attempts(self, token: Token, what: str, attempts: list[dict[str, Any]]) -> None:
        numbers = [one["number"] for one in attempts]
        if len(set(numbers)) < len(numbers):
            self.breaks(f"{what} has attempts recorded twice: {numbers}")
        seen = {one.number: one for one in token.inherited + token.requests}
        if unrecorded := {one.number for one in token.requests} - set(numbers):
            self.breaks(f"{what} was called in attempts that are not recorded: {unrecorded}")
        for one in attempts:
            request = seen.get(one["number"])
            answered = None if request is None else request.status
            if one["status"] is not None and one["status"] != answered:
                self.breaks(f"{what}: {one['status']} is recorded, the response was {answered}")
            if one["status"] is None and one["reason"] not in ("interrupted", "too_late"):
                if answered is not None:
                    self.breaks(f"{what}: {one['reason']} is recorded, the response was {answered}")
                self.unseen += request is None
            if self.only_stops_interrupt and one["status"] is None:
                self._cut_off(what, one["reason"], answered)
            self._interrupted(what, one["reason"], request)
            expected = one["status"] is not None and token.expects(one["status"])
            if request not in token.inherited and (one["reason"] is None) != expected:
                self.breaks(f"{what}: {one['status']} is recorded with the reason {one['reason']}")

    def _interrupted(self, what: str, reason: str | None, request: Seen | None) -> None:
        if request is not None and request.superseded and reason != "interrupted":
            self.breaks(f"{what}: {reason} is recorded by a daemon that had lost the claim")
        if reason == "interrupted" and not self.history.interruptions:
            self.breaks(f"{what}: an attempt is recorded as interrupted without an interruption")

    def _cut_off(self, what: str, reason: str, answered: int | None) -> None:
        """Check an attempt without a status in a world without faults of endpoints."""
        if answered is not None:
            self.breaks(f"{what}: {reason} is recorded, though {answered} had arrived")
        if reason == "connection_failed":
            self.breaks(f"{what}: the call that was cut off is recorded as {reason}")

    def _failed(self, token: Token, task: dict[str, Any], what: str, place: int) -> None:
        """Check that a task failed only after its time or its attempts were used up."""
        finished = self.history.parse(task["finished_at"])
        expires = token.expires_at(place)
        if task["reason"] == "too_late":
            if finished < expires:
                self.breaks(f"{what} failed as too_late at {task['finished_at']}")
            return
        used_up = task["attempts_used"] >= token.each
        delays = token.body["retry_delay"]
        longest = max(delays if isinstance(delays, list) else [delays])
        if not used_up and (finished + 30) // 60 * 60 + 60 * max(1, longest) < expires:
            self.breaks(f"{what} failed with attempts left: {task['detail']!r}")

    def _in_time(self, token: Token, attempts: list[dict[str, Any]]) -> None:
        """Check that a task was called as soon as possible, or as soon after its last move."""
        if token.since is None or len(token.places) != 1 or token.loose:
            return
        if token.moved and token.moved_after is None:
            return
        (place,) = token.places
        if place is None:
            return
        host = token.body["callback"].split("/")[2]
        soon = SOON + 2 * self.skew
        due = self.history.can_be_called_at(
            place, token.since, soon, self.hosts.restrictions(f"{host}:80")
        )
        if due is None or self.history.latest_before(due + soon) >= token.expires_at(place):
            return
        first = self._first_call(token, attempts)
        if first is None or first > due + soon:
            when = "never" if first is None else f"{first - due:.1f} s after that"
            self.breaks(
                f"t{token.number} {token.name}@{place} could be called at {due:.3f}, and was {when}"
            )

    def _first_call(self, token: Token, attempts: list[dict[str, Any]]) -> float | None:
        """Return the time of the first call (monotonic), even if it reached no endpoint.

        Only calls after the last move count.
        """
        after = token.moved_after or 0.0
        call = next((seen for seen in token.requests if seen.asked_elapsed >= after), None)
        if call is not None and call.number == 1:
            return call.asked_elapsed
        for one in attempts:
            if call is not None and one["number"] >= call.number:
                break
            started = self.history.elapsed_at(self.history.parse(one["started_at"]))
            if started is None or one["reason"] == "too_late":
                return 0.0
            # Responses have whole milliseconds, so that a call at once seems to precede its cause.
            if started >= after - self.skew - 0.001:
                return started
        return None if call is None else call.asked_elapsed
