"""Clients of the API: their requests, and the promises in the responses."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from random import Random
from typing import Any

from attrs import define

from .checker import Checker
from .history import History
from .token import Token
from .wire import LOST, REFUSED, Answered, Service

UNSURE = 10.0
"""Seconds around the end of ``max_delay`` in which a move may or may not be possible: a request
may take that long, and the clock of a daemon may be wrong."""


@define(eq=False)
class Client:
    """The only client of one task name, with one request at a time.

    :ivar number: returns the number of a new token.
    :ivar until: the end of its requests (monotonic).
    :ivar hasty: the probability that it disconnects before the response.
    :ivar at_edges: whether it makes half of its requests just as a minute begins, when tasks are
        claimed.
    :ivar pace: the mean seconds between two requests.
    :ivar retired: whether it has stopped; a write of its may still be made.
    """

    name: str
    random: Random
    service: Service
    checker: Checker
    history: History
    number: Callable[[], int]
    until: float
    hasty: float
    at_edges: bool = False
    pace: float = 30.0
    retired: bool = False
    _unanswered: Token | None = None

    def begin(self) -> None:
        """Make the first request after a random time."""
        self._pause()

    def _pause(self) -> None:
        if not self.retired:
            seconds = self.random.expovariate(1 / self.pace)
            if self.at_edges and self.random.random() < 0.5:
                seconds = 60 - self.history.timeline.wall() % 60 + self.random.gauss(0, 0.01)
            self.service.timeline.after(seconds, None, self._turn)

    def _turn(self) -> None:
        if self.service.timeline.elapsed < self.until and not self.retired:
            if self._unanswered is not None and self.random.random() < 0.7:
                self._repeat(self._unanswered)
            else:
                weights = _EDGE_WEIGHTS if self.at_edges else _WEIGHTS
                self.random.choices(_TURNS, weights)[0](self)

    def _ask(self, method: str, path: str, body: Any, then: Answered, **headers: str) -> None:
        def answered(status: int, answer: Any) -> None:
            self.history.say(f"{method} {path} {str(body)[:150]} -> {status}")
            if status >= 500 and status != 503:
                self.checker.breaks(f"{method} {path} was answered {status}")
            then(status, answer)
            self._pause()

        self.service.ask(method, path, body, answered, **headers)
        if self.hasty and self.random.random() < self.hasty and self.service.exchanges:
            exchange = self.service.exchanges[-1]
            if exchange.answered is answered:
                self.retired = True
                seconds = self.random.choice((0, 0.0005, 0.01))
                self.service.timeline.after(seconds, None, exchange.hang_up)

    # Requests

    def _new(self) -> Token:
        random, now = self.random, self.history.timeline.wall()
        retry, delay = random.choice((0, 0, 1, 1, 2, 3)), random.choice((0, 1, 1, 2, [1, 3]))
        body = {
            "callback": f"http://h{random.randrange(4)}.example/{(number := self.number())}",
            "retry": retry,
            "retry_delay": delay,
            "max_delay": random.choice((1, 2, 5, 10)),
            "timeout": random.choice((1, 5, 30)),
            "expected_http_status": random.choice((200, "2xx", [200, 302])),
            "payload": random.choice(("", '{"a": 1}', "text")),
            "callback_method": random.choice(("GET", "GET", "POST")),
        }
        if number % 4 == 1:
            # The negative number marks a notification.
            body |= dict.fromkeys(("on_failure", "on_success"), f"http://told.example/{-number}")
        at = int(now // 60 + random.choice((-1, 0, 0, 1, 1, 1, 2, 2, 3, 5))) * 60
        stamp = datetime.fromtimestamp(at, timezone.utc)
        forms: list[Any] = [at, str(at + 37), f"{stamp:%Y-%m-%dT%H:%M:%SZ}"]
        if self.at_edges:
            minutes = random.choice((345, 23 * 60 + 59, -23 * 60 - 59))
            there = timezone(timedelta(minutes=minutes))
            forms.append(stamp.astimezone(there).isoformat())
        # The daemon chooses the minute of a relative time.
        forms.append(random.choice(("+0m", "+1m", "+3m")))
        body["trigger_at"] = random.choice(forms)
        return Token(number, self.name, body)

    def put_new(self) -> None:
        self.put(self._new())

    def put_again(self) -> None:
        tokens = self.checker.of(self.name)
        self._repeat(self.random.choice(tokens) if tokens else self._new())

    def _repeat(self, token: Token) -> None:
        """Put a token again, at a place where it is certain to be the same task."""
        place = self._place(token)
        settled = token.moved or token.loose or token.removed
        self.put(self._new() if settled or place not in token.places else token)

    def replace(self) -> None:
        """Put a new definition in place of an existing one."""
        if (found := self._some_place()) is None:
            self.put_new()
            return
        token = self._new()
        token.body["trigger_at"] = str(found)
        self.put(token, replaces=True)

    def _place(self, token: Token) -> int | None:
        """Return the minute at which a token will be put, or ``None`` if it is uncertain."""
        at = token.body["trigger_at"]
        if str(at).startswith("+"):
            return None
        if "T" in str(at):
            return int(self.history.parse(at))
        return int(at) // 60 * 60

    def put(self, token: Token, replaces: bool = False) -> None:
        """Put a token at its own place, or in place of an existing one."""
        place = self._place(token)
        was = place is not None and place in token.places
        self.checker.sends(token, place)

        def answered(status: int, answer: Any) -> None:
            self._unanswered = token if status == LOST and place is not None else None
            if status in (200, 201):
                self._was_put(token, place, answer, was and status == 201, replaces)
            elif self._is_doubtful(status):
                self._may_be_put(token, place, replaces)
            else:
                self._was_not_put(token, place, was, status)

        headers = {"If_Match": "*"} if replaces else {}
        self._ask("PUT", f"/task/{self.name}", token.body, answered, **headers)

    def _is_doubtful(self, status: int) -> bool:
        """Return whether it is unknown if the write was made; after a 503 it was not."""
        return status == LOST or (status == 503 and self.history.doubts > 0)

    def _may_be_put(self, token: Token, place: int | None, replaces: bool) -> None:
        token.since = None
        token.places.add(None)
        for other in self.checker.of(self.name, place) if replaces else []:
            if other is not token:
                token.inherited += other.requests + other.inherited
                self.checker.may_be_gone(other)

    def _was_put(
        self, token: Token, place: int | None, answer: Any, anew: bool, replaces: bool
    ) -> None:
        at = int(answer["trigger_at"])
        if place is None:
            token.loose -= 1
            token.placed[at] += 1
            token.places.add(at)
        elif at != place:
            self.checker.breaks(f"t{token.number} was put to {at}, not {place}")
        if anew and token.places == {place}:
            self.checker.breaks(f"t{token.number} was lost: its key was free for it again")
        if not answer["callback"].endswith(f"/{token.number}"):
            self.checker.breaks(f"t{token.number} was answered with {answer['callback']}")
        if replaces:
            for other in self.checker.of(self.name, at):
                if other is not token:
                    # The attempts of the replaced task stay recorded.
                    token.inherited += other.requests + other.inherited
                    self.checker.is_gone(other, at, taken=True)
        self.checker.stands(token, at)

    def _was_not_put(self, token: Token, place: int | None, was: bool, status: int) -> None:
        """Note that a put changed nothing."""
        if place is None:
            token.loose -= 1
        elif not was:
            token.placed[place] -= 1
            token.places -= {place}
            token.places = token.places or {None}
        left = 0.0 if place is None else token.expires_at(place) - self.history.timeline.wall()
        if status == 422 and left > UNSURE:
            self.checker.breaks(f"t{token.number} is refused, with {left:.3f} s left at {place}")
        if status not in (REFUSED, 409, 412, 422, 503):
            self.checker.breaks(f"a put of t{token.number} was answered {status}")

    def put_batch(self) -> None:
        tokens = [self._new() for _ in range(self.random.randrange(1, 5))]
        places = [self._place(token) for token in tokens]
        for token, place in zip(tokens, places, strict=True):
            self.checker.sends(token, place)

        def answered(status: int, answer: Any) -> None:
            if self._is_doubtful(status):
                return
            answers = answer if status == 200 else [{"status": status}] * len(tokens)
            for token, place, one in zip(tokens, places, answers, strict=True):
                if one["status"] in (200, 201):
                    at = int(one["task"].partition("@")[2])
                    known = {"trigger_at": at, "callback": token.body["callback"]}
                    self._was_put(token, place, known, False, False)
                else:
                    self._was_not_put(token, place, False, one["status"])

        self._ask("POST", "/batch", [{**t.body, "task_name": t.name} for t in tokens], answered)

    def _some_place(self) -> int | None:
        known = sorted({at for token in self.checker.of(self.name) for at in token.standing})
        return self.random.choice(known) if known else None

    def get(self) -> None:
        if (place := self._some_place()) is None:
            self.put_new()
            return

        def answered(status: int, answer: Any) -> None:
            if status == 200:
                number = int(answer["callback"].rpartition("/")[2])
                self.checker.stands(self.checker.tokens[number], place)
            elif status == 404:
                for token in self.checker.of(self.name, place):
                    self.checker.is_gone(token, place, lost="GET answers 404")

        self._ask("GET", f"/status/{self.name}@{place}", None, answered)

    def delete(self) -> None:
        if (place := self._some_place()) is None:
            self.put_new()
            return

        def answered(status: int, answer: Any) -> None:
            for token in self.checker.of(self.name, place):
                if status == 204:
                    self.checker.is_gone(token, place, taken=True)
                elif status == 404:
                    self.checker.is_gone(token, place, lost="DELETE answers 404")
                elif self._is_doubtful(status):
                    self.checker.may_be_gone(token)

        self._ask("DELETE", f"/task/{self.name}@{place}", None, answered)

    def delete_name(self) -> None:
        tokens = [one for one in self.checker.of(self.name) if one.places != {None}]

        def answered(status: int, answer: Any) -> None:
            skipped = [] if status != 200 else [one["task"] for one in answer["skipped"]]
            for token in tokens:
                for place in token.standing:
                    if status == 200 and f"{self.name}@{place}" not in skipped:
                        self.checker.is_gone(token, place, taken=True)
                    elif status == 404:
                        self.checker.is_gone(token, place, lost="DELETE answers 404")
                    elif self._is_doubtful(status):
                        self.checker.may_be_gone(token)

        self._ask("DELETE", f"/task/{self.name}", None, answered)

    def reschedule(self) -> None:
        """Move one task, or all of the name."""
        place = self._some_place() if self.random.random() < 0.7 else None
        # A token at an unknown place may be there.
        tokens = [
            one
            for one in self.checker.of(self.name)
            if place is None or place in one.places or one.loose
        ]
        body, asked_at, wall = None, self.history.elapsed(), self.history.timeline.wall()
        if self.random.random() < 0.6:
            body = {"trigger_at": str(self._new_minute(tokens))}
        for token in tokens:
            token.loose += 1

        def answered(status: int, answer: Any) -> None:
            if place is not None and body is not None:
                walls = (wall, self.history.timeline.wall())
                self._judge_move(tokens, int(body["trigger_at"]), walls, status, answer)
            if self._is_doubtful(status):
                for token in tokens:
                    token.moved, token.since = True, None
                return
            for token in tokens:
                token.loose -= 1
            if status == 200:
                moves = [(_at(one["from"]), _at(one["to"])) for one in answer["rescheduled"]]
                self._were_moved(tokens, dict(moves), asked_at)
            elif status == 404:
                self._are_gone(tokens, place)

        path = f"/reschedule/{self.name}" + ("" if place is None else f"@{place}")
        path += self.random.choice(("", "?all=true"))
        self._ask("POST", path, body, answered)

    def _are_gone(self, tokens: list[Token], place: int | None) -> None:
        for token in tokens:
            for at in token.standing if place is None else [place]:
                self.checker.is_gone(token, at, lost="POST answers 404")

    def _new_minute(self, tokens: list[Token]) -> int:
        """Return the minute to move a task to: at the edges, one that ``max_delay`` just allows."""
        minutes = [0, 1, 2, 4]
        if self.at_edges and tokens:
            longest = int(tokens[0].body["max_delay"])
            minutes += [0, 0, -1, 1 - longest, -longest]
        return int(self.history.timeline.wall() // 60 + self.random.choice(minutes)) * 60

    def _judge_move(
        self,
        tokens: list[Token],
        minute: int,
        walls: tuple[float, float],
        status: int,
        answer: Any,
    ) -> None:
        """Check that ``max_delay`` decides whether the only task that is meant can be moved.

        :param walls: the wall clock at the request and at the response: it may be set in between.
        """
        if len(tokens) != 1 or len(tokens[0].places) != 1 or tokens[0].loose != 1:
            return
        expires_at = tokens[0].expires_at(minute)
        least, most = expires_at - max(walls), expires_at - min(walls)
        what = f"t{tokens[0].number}, which has {least:.3f} to {most:.3f} s left at {minute}"
        if status == 422 and least > UNSURE:
            self.checker.breaks(f"{what}, cannot be moved there: {answer['detail']}")
        if status == 200 and answer["rescheduled"] and most < -UNSURE:
            self.checker.breaks(f"{what}, is moved there")

    def _were_moved(self, tokens: list[Token], moves: dict[int, int], asked_at: float) -> None:
        for token in tokens:
            came = {moves[one] for one in token.places if one in moves and one is not None}
            if not came:
                # A token at an unknown place may have been moved.
                token.loose += 1 if token.loose and moves else 0
                continue
            for place in came:
                token.placed[place] += 1
            stays = {one for one in token.places if one not in moves}
            token.places = stays | came
            self.checker.was_moved(token, asked_at)


def _at(key: str) -> int:
    return int(key.partition("@")[2])


_TURNS: tuple[Callable[[Client], None], ...] = (
    Client.put_new,
    Client.put_batch,
    Client.put_again,
    Client.replace,
    Client.get,
    Client.delete,
    Client.delete_name,
    Client.reschedule,
)
_WEIGHTS = (10, 3, 2, 2, 3, 2, 1, 4)
_EDGE_WEIGHTS = (10, 3, 2, 6, 3, 2, 1, 8)
