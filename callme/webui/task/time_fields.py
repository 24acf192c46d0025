"""The fields for a minute: a text, or a local time in a zone; and the meaning of a minute."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from attrs import frozen
from twisted.web.template import Tag, tags

from ...api.requests import parse_new_time
from ...core.text import zones
from ...core.times import rfc3339
from ...errors import FieldError, Invalid, InvalidValue
from ..widgets import Renderable, flash, minute, relative

TIME_FIELD = "trigger_at"
LOCAL_FIELD = "local_time"
ZONE_FIELD = "zone"
UTC = "UTC"
_WITHOUT_ZONE = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2})?)(?: ?UTC)?"
)


def time_in_utc(text: str) -> str:
    """Return a time of a form, which means UTC if it names no zone, as the API accepts it."""
    match = _WITHOUT_ZONE.fullmatch(text)
    return text if match is None else f"{match[1]}Z"


@frozen(kw_only=True)
class TimeInput:
    """The content of the fields.

    :ivar text: one of the forms that the API accepts, or a time in UTC as pages display it.
    :ivar local: a local time, as a browser sends it.
    :ivar zone: the zone of the local time.
    :ivar is_new: whether the fields are as they were at first, so that a script may set the zone.
    """

    text: str = ""
    local: str = ""
    zone: str = UTC
    is_new: bool = False

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> TimeInput:
        """Return the content in a submitted form."""
        text, local, zone = (
            fields.get(name, "").strip() for name in (TIME_FIELD, LOCAL_FIELD, ZONE_FIELD)
        )
        return cls(text=text, local=local, zone=zone or UTC)

    def trigger_at(self) -> dict[str, object]:
        """Return the member of the API's request body; none if no time is given.

        :raises Invalid: if there are two times.
        """
        if self.text and self.local:
            detail = "there are two times: expected one of them, or none"
            raise Invalid([FieldError(f"/{TIME_FIELD}", detail)])
        if self.local:
            return {TIME_FIELD: f"{self.local}[{self.zone}]"}
        return {TIME_FIELD: time_in_utc(self.text)} if self.text else {}


@frozen(kw_only=True)
class Meaning:
    """Minute in the time fields.

    :ivar trigger_at: seconds since 1970.
    :ivar zone: the zone of the local time beside it.
    :ivar warnings: sentences about the time.
    """

    trigger_at: int
    zone: str
    warnings: Sequence[str] = ()

    def render(self, now: float) -> list[Renderable]:
        """Return the minute in UTC and in its zone, and how far away it is."""
        parts: list[Renderable] = [minute(self.trigger_at), " UTC"]
        if local := local_minute(self.trigger_at, self.zone):
            parts += [f", which is {local} in {self.zone}"]
        return [
            *parts,
            f", {relative(self.trigger_at - now)}.",
            *(f" {warning}." for warning in self.warnings),
        ]


def meaning_of(time: TimeInput, now: float) -> Meaning:
    """Return the minute that the fields mean; the next minute if they are empty.

    :raises Invalid: if they mean none.
    """
    warnings: list[FieldError] = []
    trigger_at = parse_new_time(time.trigger_at(), now, warnings)
    texts = [warning.detail for warning in warnings]
    return Meaning(trigger_at=trigger_at, zone=time.zone, warnings=texts)


def local_minute(trigger_at: int, zone: str) -> str:
    """Return a minute in a zone; an empty text for UTC and for an unknown zone."""
    if zone == UTC:
        return ""
    try:
        local = trigger_at + zones.offset_at(trigger_at, zone)
        text = rfc3339(local * 1000)
    except (InvalidValue, ValueError, OverflowError):
        return ""
    return f"{text[:10]} {text[11:16]}"


def time_fields(time: TimeInput, errors: Sequence[str], empty: str) -> Tag:
    """Return the fields.

    :param errors: sentences about the time.
    :param empty: the meaning of empty fields, as a sentence.
    """
    error = flash("; ".join(errors), "wrong")(id="time-error") if errors else ""
    described = "time-error time-hint" if errors else "time-hint"
    text = _field("time", TIME_FIELD, time.text, maxlength="64", spellcheck="false")
    local = _field("local-time", LOCAL_FIELD, time.local, type="datetime-local")
    zone = _field("time-zone", ZONE_FIELD, time.zone, maxlength="64", spellcheck="false")
    if time.is_new:
        zone.attributes["data-own-zone"] = "yes"
    for field in (text, local):
        field.attributes["aria-describedby"] = described
        if errors and field.attributes["value"]:
            field.attributes["aria-invalid"] = "true"
    if errors and not time.local:
        text.attributes["aria-invalid"] = "true"
    hint = tags.p(
        *(tags.code("+5m"), ", ", tags.code("+2h"), " or ", tags.code("+1d")),
        *(" from now, a time in UTC such as ", tags.code("2028-11-26 09:00")),
        f", or a Unix timestamp. Instead, you can choose a local time. {empty}",
        id="time-hint",
        class_="hint",
    )
    return tags.fieldset(
        tags.legend("Time"),
        error,
        tags.p(tags.label("From now, or in UTC")(for_="time"), text),
        tags.p(tags.label("Local time")(for_="local-time"), local),
        tags.p(tags.label("Zone of the local time")(for_="time-zone"), zone),
        hint,
    )


def _field(identifier: str, name: str, value: str, **attributes: str) -> Tag:
    return tags.input(id=identifier, name=name, value=value, autocomplete="off", **attributes)
