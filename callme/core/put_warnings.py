"""Warnings about definitions that are valid but probably not intended."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator

from ..errors import FieldError
from .task import Definition
from .times import MINUTE, floor_to_minute
from .transitions import PROMPT_ATTEMPTS, prompt_delay


def may_need_warning(definition: Definition, now: float) -> bool:
    """Return whether :func:`warnings_about` may yield a warning besides those about the time.

    This cheap test spares nearly every definition the full one.

    :param now: the server's time: seconds since 1970.
    """
    if definition.has_payload or definition.trigger_at < now:
        return True
    # This is an upper bound of the time that all attempts take.
    longest_prompt = 1 if definition.retry >= PROMPT_ATTEMPTS else 0
    longest = definition.retry * max(longest_prompt, *definition.retry_delay)
    return longest >= definition.max_delay


def warnings_about(
    definition: Definition,
    given: Container[str],
    now: float,
    about_time: Iterable[str] = (),
) -> Iterator[FieldError]:
    """Yield a warning for each property of a definition that its client may not intend.

    :param given: the names of the parameters in the request.
    :param now: the server's time: seconds since 1970.
    :param about_time: warnings about ``trigger_at``; a time in both the URL and the body yields the
        same warning twice.
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
    """Return the number of attempts that can start before ``max_delay`` if each fails at once."""
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
    # From here on the last delay repeats.
    if at > last:
        return most
    if delays[-1] == 0:
        return _prompt_attempts(min(len(delays), most), most, last - at)
    at = floor_to_minute(at + MINUTE / 2)
    return min(most, min(len(delays), most) + (last - at) // (MINUTE * delays[-1]))


def _prompt_attempts(begun: int, most: int, seconds: int) -> int:
    """Return the number of the last attempt that starts in time, if ``retry_delay`` is 0.

    :param begun: the number of the attempt that has started.
    :param most: the number of the last attempt that ``retry`` allows.
    :param seconds: the time that is left for starting attempts.
    """
    for number in range(begun, most):
        seconds -= prompt_delay(number)
        if seconds < 0:
            return number
    return most
