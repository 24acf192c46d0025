"""The documentation as a script: its commands, files and expected output.

The fenced blocks of a page are executed from top to bottom:

- ``console``: each ``$`` line is a command (a backslash or an open quote continues it), and
  the lines after it are its output, as :func:`check` compares it.
- Any other block below ``<!-- file: NAME -->`` is a file for later commands.
- A block below ``<!-- in the log -->`` has lines that must be in the log of the daemon.
- A block below ``<!-- not run: REASON -->`` is skipped.

Rendered Markdown does not display the markers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from attrs import define, evolve, field

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
MORE = "…"
"""Placeholder for any further lines, members or elements, or for the rest of a string."""
_MARKER = re.compile(r"<!-- (in the log|(?:file|not run): (.+)) -->$")
_FENCE = re.compile(r"```(\w*)$")


@define(frozen=True)
class File:
    """A file in the page."""

    line: int
    name: str
    text: str


@define(frozen=True)
class Command:
    """A command, and its documented output."""

    line: int
    text: str
    answer: str

    @property
    def in_background(self) -> bool:
        return self.text.endswith("&")

    @property
    def only_looks(self) -> bool:
        """Return whether the command can be repeated: a plain ``GET`` with curl."""
        return self.text.startswith("curl ") and not re.search(r" (-X|-d|--data\S*|-T) ", self.text)


@define(frozen=True)
class Logged:
    """Lines of the log, with or without the time before them."""

    line: int
    text: str


@define(frozen=True)
class Skipped:
    """A block that is not run."""

    line: int
    reason: str
    text: str


@define(frozen=True)
class Shown:
    """Any other block, or a line between blocks."""

    line: int
    text: str


Step = File | Command | Logged | Skipped | Shown


def steps(markdown: str) -> Iterator[Step]:
    """Split a page into steps.

    :raises ValueError: for a marker that no block follows, and for a file without a name.
    """
    lines = iter(enumerate(markdown.splitlines(), 1))
    marker: re.Match[str] | None = None
    for number, line in lines:
        fence = _FENCE.match(line)
        if fence is None:
            if marker is not None and line:
                raise ValueError(f"line {number}: a block was expected below {marker[0]}")
            marker = marker or _MARKER.match(line)
            yield Shown(number, line)
            continue
        block = []
        for _, inside in lines:
            if inside == "```":
                break
            block.append(inside)
        yield from _of_block(number + 1, fence[1], block, marker)
        marker = None


def _of_block(
    number: int, language: str, block: list[str], marker: re.Match[str] | None
) -> Iterator[Step]:
    text = "\n".join(block) + "\n"
    if marker is not None and marker[1].startswith("file"):
        yield File(number, marker[2], text)
    elif marker is not None and marker[2] is None:
        yield Logged(number, text)
    elif marker is not None:
        yield Skipped(number, marker[2], text)
    elif language == "console":
        yield from _commands(number, block)
    else:
        yield Shown(number, text)


def _commands(number: int, block: list[str]) -> Iterator[Command]:
    at = 0
    while at < len(block):
        first, command = at, block[at].removeprefix("$ ")
        if not block[at].startswith("$ "):
            raise ValueError(f"line {number + at}: a command was expected: $ ...")
        at += 1
        while command.endswith("\\") or command.count("'") % 2:
            command += "\n" + block[at]
            at += 1
        answer = []
        while at < len(block) and not block[at].startswith("$ "):
            answer.append(block[at])
            at += 1
        yield Command(number + first, command, "\n".join(answer))


# Variable parts of output

_MINUTE = r"(?<!\d)\d{10}(?!\d)"
_RFC3339 = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{3})?Z"
_VARIABLE = re.compile(rf"({_MINUTE})|({_RFC3339})|callme[/ ]\d+\.\d+\.\d+|{MORE}")
_MILLISECONDS = re.compile(r"\.\d{3}(?=Z)")


@define
class Minutes:
    """A mapping from each minute of a page to a real minute.

    A minute that first occurs in a command is not replaced.
    """

    _known: dict[str, str] = field(factory=dict)

    def copy(self) -> Minutes:
        return evolve(self, known=dict(self._known))

    def said_in(self, command: str) -> str:
        """Return a command with the real minutes."""

        def true(found: re.Match[str]) -> str:
            return self._known.setdefault(found[0], found[0])

        for time in re.findall(_RFC3339, command):
            minute = _unix(time)
            self._known.setdefault(minute, minute)
        return re.sub(_MINUTE, true, command)

    def matches(self, documented: str, actual: str) -> bool:
        """Return whether a text equals the documented one, except for variable parts.

        If so, the meaning of its minutes is stored.
        """
        pattern, at = "", 0
        found: list[str] = []
        for variable in _VARIABLE.finditer(documented):
            pattern += re.escape(documented[at : variable.start()])
            at = variable.end()
            pattern += self._pattern(variable, found)
        match = re.fullmatch(pattern + re.escape(documented[at:]), actual, re.DOTALL)
        if match is None:
            return False
        for minute, time in zip(found, match.groups(), strict=True):
            true = time if time.isdigit() else _unix(time)
            if self._known.setdefault(minute, true) != true:
                return False
        return True

    def _pattern(self, variable: re.Match[str], found: list[str]) -> str:
        minute, time = variable.groups()
        if variable[0] == MORE:
            return ".*?"
        if minute is not None:
            found.append(minute)
            return f"({_MINUTE})"
        if time is None:
            return r"callme[/ ]\d+\.\d+\.\d+"
        if _unix(time) and int(_unix(time)) % 60 == 0 and ".000Z" in time:
            # Hardly any time but the beginning of a minute ends like this.
            found.append(_unix(time))
            return f"({_RFC3339})"
        return _RFC3339


def _unix(time: str) -> str:
    moment = datetime.strptime(_MILLISECONDS.sub("", time), "%Y-%m-%dT%H:%M:%SZ")
    return str(int(moment.replace(tzinfo=timezone.utc).timestamp()))


# Comparison


def check(documented: str, actual: str, minutes: Minutes) -> None:
    """Fail unless the output of a command is the documented one.

    A response head must have the documented headers. JSON must have the documented members and
    values in their order, and no others unless there is a ``…``. Anything else is compared as
    text. Times, durations, node names and callme's version may differ.
    """
    actual = actual.replace("\r\n", "\n")
    if documented.startswith("HTTP/"):
        head, _, documented = documented.partition("\n\n")
        true_head, _, actual = actual.partition("\n\n")
        _check_head(head.splitlines(), true_head.splitlines(), minutes)
    if documented[:1] in ("{", "["):
        expected = list(_documents(documented))
        got = list(_documents(actual))
        assert len(got) == len(expected), f"{len(expected)} values were expected: {actual}"
        for one, other in zip(expected, got, strict=True):
            _check_value(one, other, minutes, "")
    else:
        assert minutes.matches(documented, actual.rstrip("\n")), f"printed was:\n{actual}"


def _check_head(documented: list[str], actual: list[str], minutes: Minutes) -> None:
    assert documented[0] == actual[0], f"{actual[0]} instead of {documented[0]}"
    shown = [line for line in documented[1:] if line != MORE]
    for line in shown:
        assert any(minutes.matches(line, one) for one in actual), f"{line}: not in {actual}"
    assert MORE in documented or len(shown) == len(actual) - 1, f"there is more: {actual}"


def _check_value(documented: Any, actual: Any, minutes: Minutes, path: str) -> None:
    if isinstance(documented, dict):
        assert isinstance(actual, dict), f"{path}: {actual!r} is no object"
        names = [name for name in documented if name != MORE]
        present = [name for name in actual if name in names or MORE not in documented]
        assert names == present, f"{path}: {list(actual)} instead of {list(documented)}"
        for name in names:
            _check_member(name, documented[name], actual[name], minutes, f"{path}/{name}")
    elif isinstance(documented, list):
        assert isinstance(actual, list), f"{path}: {actual!r} is no list"
        elements = [one for one in documented if one != MORE]
        assert len(elements) == len(actual) or MORE in documented, f"{path}: {actual}"
        for number, (one, other) in enumerate(zip(elements, actual, strict=False)):
            _check_value(one, other, minutes, f"{path}/{number}")
    elif isinstance(documented, str):
        assert isinstance(actual, str), f"{path}: {actual!r} is no string"
        assert minutes.matches(documented, actual), f"{path}: {actual!r}"
    else:
        same = documented == actual and type(documented) is type(actual)
        assert same, f"{path}: {actual!r} instead of {documented!r}"


def _check_member(name: str, documented: Any, actual: Any, minutes: Minutes, path: str) -> None:
    if name.endswith("_ms") and documented is not None:
        assert type(actual) is type(documented) is int, f"{path}: {actual!r} is no duration"
        assert actual >= 0, f"{path}: {actual}"
    elif name == "node" and documented is not None:
        assert isinstance(actual, str), f"{path}: {actual!r} is no name"
        assert actual, f"{path}: it is empty"
    else:
        _check_value(documented, actual, minutes, path)


# JSON with omissions


def _documents(text: str) -> Iterator[Any]:
    """Parse consecutive JSON values in which ``…`` may stand for a member or an element.

    :raises ValueError: for anything else.
    """
    at = 0
    while at < len(text.rstrip()):
        value, at = _value(text, _blank(text, at))
        yield value


def _value(text: str, at: int) -> tuple[Any, int]:
    opening = text[at : at + 1]
    if opening not in ("{", "["):
        if text.startswith(MORE, at):
            return MORE, at + 1
        return json.JSONDecoder().raw_decode(text, at)
    closing, members, elements = {"{": "}", "[": "]"}[opening], {}, []
    at = _blank(text, at + 1)
    while text[at : at + 1] != closing:
        value, at = _value(text, at)
        at = _blank(text, at)
        if opening == "[":
            elements.append(value)
        elif value == MORE:
            members[MORE] = MORE
        else:
            if text[at : at + 1] != ":":
                raise ValueError(f"a colon was expected: {text[at : at + 20]!r}")
            members[value], at = _value(text, _blank(text, at + 1))
        at = _blank(text, at, ",")
    return (members if opening == "{" else elements), at + 1


def _blank(text: str, at: int, also: str = "") -> int:
    while at < len(text) and (text[at].isspace() or text[at] in also):
        at += 1
    return at
