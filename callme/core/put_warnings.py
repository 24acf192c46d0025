"""Warnings about definitions that are valid and probably not meant."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator

from ..errors import FieldError
from .task import Definition
from .times import MINUTE, floor_to_minute
from .transitions import PROMPT_ATTEMPTS, prompt_delay


def may_need_warning(definition: Definition, now: float) -> bool:
    """Return whether there may be a warning about more than its time; it is cheap to find out.

    :param now: the server's time: seconds since 1970.
    """
    if definition.has_payload or definition.trigger_at < now:
        return True
    # Nearly every definition is below this upper bound.
    longest_prompt = 1 if definition.retry >= PROMPT_ATTEMPTS else 0
    longest = definition.retry * max(longest_prompt, *definition.retry_delay)
    return longest >= definition.max_delay


def warnings_about(
    definition: Definition,
    given: Container[str],
    now: float,
    about_time: Iterable[str] = (),
) -> Iterator[FieldError]:
    """Yield a warning for each trait of a definition that its client perhaps did not mean.

    :param given: the names of the parameters that the client gave.
    :param now: the server's time: seconds since 1970.
    :param about_time: warnings about its ``trigger_at``; the same time in the URL and in the body
        has the same one.
    """
    for detail in dict.fromkeys(about_time):
        yield FieldError("/trigger_at", detail)
    if definition.has_payload and "callback_method" not in given:
        yield FieldError(
            "/callback_method",
            f"the payload is sent with {definition.callback_method}, the default: "
            "set callback_method to POST if the endpoint expects that",
        )
    attempts, fitting = 1 + definition.retry, attempts_that_fit(definition, now)
    if fitting < attempts:
        minutes = definition.max_delay
        yield FieldError(
            "/max_delay",
            f"{fitting:,} of {attempts:,} attempts fit before max_delay, which ends "
            f"{minutes:,} minute{'' if minutes == 1 else 's'} after trigger_at",
        )


def attempts_that_fit(definition: Definition, now: float) -> int:
    """Return how many attempts can start before ``max_delay``, if each fails in its own minute."""
    most = 1 + definition.retry
    at = max(definition.trigger_at, floor_to_minute(now))
    delays, last = definition.retry_delay, definition.expires_at - 1
    for fitting in range(1, min(len(delays), most)):
        if delay := delays[fitting - 1]:
            at = floor_to_minute(at + MINUTE / 2) + MINUTE * delay
        else:
            at += prompt_delay(fitting)
        if at > last:
            return fitting
    # The last delay repeats after this attempt.
    if at > last:
        return most
    if delays[-1] == 0:
        return _prompt_attempts(min(len(delays), most), most, last - at)
    at = floor_to_minute(at + MINUTE / 2)
    return min(most, min(len(delays), most) + (last - at) // (MINUTE * delays[-1]))


def _prompt_attempts(begun: int, most: int, seconds: int) -> int:
    """Return how many attempts start within some seconds of one, if ``retry_delay`` is 0.

    :param begun: the number of that attempt.
    """
    for number in range(begun, most):
        seconds -= prompt_delay(number)
        if seconds < 0:
            return number
    return most
