"""Hints for invalid JSON: the probable mistake of the client, and its repair."""

from __future__ import annotations

import re

from ...errors import quoted

_FILE = "as curl --data @file does and --data-raw does not"
_FORM = re.compile(rb"[A-Za-z_][A-Za-z0-9_.\[\]-]*=|--[^\r\n]{1,80}\r?\ncontent-", re.IGNORECASE)
_FILE_NAME = re.compile(rb"@.*|[A-Za-z0-9_./\\:-]+\.json\s*", re.DOTALL)
_YAML = re.compile(rb"(?:---\s+)?[A-Za-z_]+:\s")
_OBJECT_AFTER_OBJECT = re.compile(rb"\}[ \t\r]*\n\s*\{")
_UTF16 = re.compile(rb"\xff\xfe|\xfe\xff|\x00?[{\[]\x00")
"""A byte order mark, which some Windows programs write, or a bracket in two bytes."""
_COMMENT = "JSON has no comments"
_BEGINS = (
    (_FILE_NAME, f"is the name of a file: send its content, {_FILE}"),
    (re.compile(rb"\x1f\x8b"), "is compressed with gzip: send it as it is"),
    (_UTF16, "is UTF-16: send UTF-8"),
    (
        re.compile(rb"\[object Object\]"),
        "is not the JSON of an object: send JSON.stringify(object)",
    ),
    (re.compile(rb"%(?:7B|5B)", re.IGNORECASE), "is percent-encoded: send it as it is"),
    (re.compile(rb"'"), "begins with a single quote, which cmd.exe does not remove: {expected}"),
    (_FORM, "looks like a form: {expected}"),
    (re.compile(rb"<"), "looks like XML or HTML: {expected}"),
    (_YAML, "looks like YAML: {expected}"),
    (re.compile(rb"#|//|/\*"), f"begins with a comment, and {_COMMENT}: {{expected}}"),
)
"""Beginnings of invalid bodies, each with its meaning and the repair."""
_FOUND = {'"': "a double quote", "'": "a single quote", "\\": "a backslash"}
_REPAIRS = (
    (r"'", "names and strings take double quotes"),
    (r"None\b|undefined\b|nil\b|NULL\b", "leave the member out, or write null"),
    (r"True\b", "write true"),
    (r"False\b", "write false"),
    (r"//|/\*|#", _COMMENT),
    (r"[\u2018-\u201f\u00ab\u00bb]", "write straight double quotes"),
    (r"\\'", "a single quote needs no backslash"),
    (r'\\"', "this double quote takes no backslash"),
    (r"\\", r"a backslash in a string is written \\"),
    (r"\$|(?<=\{)\{|%\(|`", "a placeholder has not been replaced by its value"),
    (r"\+", "a number has no plus, and a duration such as +6h takes double quotes"),
    (r"(?<=0)[0-9]", "a number has no leading zero"),
    (r"(?<=0)[xXoObB]|(?<=[0-9])_|(?<=[0-9],)[0-9]|\.", "a number is written as 1000 or 0.5"),
    (r"\n|\r", r"a line feed in a string is written \n"),
    (r"\t", r"a tab in a string is written \t"),
    (r"[\x00-\x1f]|[^\S ]|[\u200b\ufeff]", "this character is invisible: leave it out"),
)
"""Text at the position of an error, each with the likely repair."""
_COMPILED = tuple((re.compile(pattern), repair) for pattern, repair in _REPAIRS)
_EXPECTED = {
    "Expecting property name": "names take double quotes, and no comma follows the last member",
    "Expecting value": "a value is missing, or a string without double quotes",
    "Expecting ':'": "a colon is missing after a name",
    "Expecting ','": "a comma is missing, or a double quote in a string has no backslash before it",
    "Extra data": "leave out what follows the end",
    "Unterminated string": "a double quote is missing at its end, or the body is cut off",
    "Illegal trailing comma": "leave it out",
}
"""Beginnings of the messages of Python's JSON decoder, each with the likely repair."""


def object_hint(data: bytes, error: str) -> str:
    """Return the error for a body that is not a JSON object; empty if ``error`` suffices.

    :param error: the decoder's error.
    """
    hint = _body_hint(data, error, 'a JSON object, such as {"trigger_at": "+6h"}')
    if not hint and (line := _second_object(data)):
        return f"line {line} begins another object: expected one, or POST /batch"
    return hint


def batch_hint(data: bytes, error: str) -> str:
    """Return the error for a body that is not a batch; empty if ``error`` suffices.

    :param error: the decoder's error.
    """
    expected = 'a JSON array of tasks, such as [{"task_name": "a", "trigger_at": "+6h", ...}]'
    if not data.strip():
        return f"the body is empty: expected {expected}"
    if hint := _body_hint(data, error, expected):
        return hint
    begin = data.lstrip()[:1]
    if begin != b"{":
        return "" if begin == b"[" else f"the body is not a JSON array: expected {expected}"
    if line := _second_object(data):
        return (
            f"the body is not a JSON array: line {line} begins another object; "
            "send one object per line with Content-Type: application/x-ndjson"
        )
    return f"the body is an object: expected {expected}"


def value_hint(value: object) -> str:
    """Return a hint for a JSON value that is not an object; empty if there is none."""
    if isinstance(value, list):
        return "; POST /batch takes a list of tasks"
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        return "; this string contains JSON: encode it once, not twice"
    return ""


def syntax_hint(text: str, at: int, error: str) -> str:
    """Return the character at the position of a syntax error, and the likely repair.

    :param at: the index of the error in ``text``.
    :param error: the message of Python's JSON decoder.
    """
    repair = next((words for begin, words in _EXPECTED.items() if error.startswith(begin)), "")
    if error.startswith(("Illegal", "Unterminated")):
        return f": {repair}"
    if at >= len(text):
        return ", found the end: the body is cut off"
    # The hint quotes one character only, because the text may contain secrets.
    found = text[at]
    for pattern, words in _COMPILED:
        if match := pattern.match(text, at):
            repair, found = words, match[0] if match[0].isalpha() else found
            break
    return f", found {_FOUND.get(found) or quoted(found)}" + (repair and f": {repair}")


def utf8_hint(error: UnicodeDecodeError) -> str:
    """Return the likely cause of bytes that are not UTF-8."""
    if error.end == len(error.object) and error.reason == "unexpected end of data":
        return ": the body is cut off within a character"
    return ", as in Latin-1 or Windows-1252; JSON is UTF-8 (RFC 8259, section 8.1)"


def _body_hint(data: bytes, error: str, expected: str) -> str:
    """Return an error based on the beginning of a body; empty if that gives no hint.

    :param expected: a description of a valid body.
    """
    text = data.lstrip()
    for pattern, meaning in _BEGINS:
        if pattern.match(text):
            return f"the body {meaning.replace('{expected}', f'expected {expected}')}"
    if "is not JSON" in error and not text.startswith((b"{", b"[")):
        return f"the body is not JSON: expected {expected}"
    return ""


def _second_object(data: bytes) -> int:
    """Return the number of the line on which a second object begins; 0 if there is none."""
    found = _OBJECT_AFTER_OBJECT.search(data)
    return 1 + data.count(b"\n", 0, found.end()) if found else 0
