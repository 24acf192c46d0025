"""The documentation: links have targets, and every command is run or gives a reason."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from callme.config import Options
from callme.core.parameters import PARAMETERS
from tests.helpers.documentation import (
    MORE,
    PAGES,
    ROOT,
    Command,
    File,
    Logged,
    Minutes,
    Shown,
    Skipped,
    Step,
    check,
    steps,
)
from tests.helpers.openapi_checks import PATHS, template_of

sys.path.insert(0, str(ROOT / "docs/site"))

from badges import DIRECTORY, badges
from options import options_table
from reference import PAGE, reference, whole_page

NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
MOST_SKIPPED = 6
"""Upper bound of the blocks that are not run, in all pages together."""


def of_all_pages() -> list[tuple[str, Step]]:
    return [
        (name, step)
        for name, page in zip(NAMES, PAGES, strict=True)
        for step in steps(page.read_text())
    ]


STEPS = of_all_pages()


# Links


def slug(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    text = re.sub(r"[`*]|\[|\]\([^)]*\)", "", heading.lower())
    return re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-")


def anchors(page: Path) -> set[str]:
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", prose, re.MULTILINE)}


@pytest.mark.parametrize("name", NAMES)
def test_every_link_has_a_target(name: str) -> None:
    page = ROOT / name
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{name}: {target}"
        assert there.is_relative_to(ROOT), f"{name}: {target} lies outside"
        assert not anchor or anchor in anchors(there), f"{name}: {target}"


@pytest.mark.parametrize("name", NAMES)
def test_files_named_on_a_page_exist(name: str) -> None:
    for path in re.findall(r"`([\w.-][\w./-]*/(?:[\w-]+\.py)?)`", (ROOT / name).read_text()):
        bases = (ROOT, ROOT / "callme", ROOT / "tests")
        assert any((base / path).exists() for base in bases), f"{name}: {path}"


def test_every_page_is_linked_from_the_index() -> None:
    links = re.findall(r"\]\(([^)#\s]+\.md)", (ROOT / "docs/index.md").read_text())
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert pages <= set(links)
    assert "(docs/index.md)" in (ROOT / "README.md").read_text()


# Commands


def test_every_curl_line_is_run_or_gives_a_reason() -> None:
    for name, step in STEPS:
        if isinstance(step, Command):
            shown = step.answer.replace(MORE, "").strip()
            assert shown or "curl" not in step.text or step.in_background, (
                f"{name}:{step.line}: no answer is shown"
            )
        elif isinstance(step, Shown):
            assert not re.search(r"\bcurl .*(6777|\$)", step.text), (
                f"{name}:{step.line}: a curl line outside of what is run: {step.text}"
            )


def test_skipped_blocks_are_few() -> None:
    skipped = [(name, step.reason) for name, step in STEPS if isinstance(step, Skipped)]
    assert len(skipped) <= MOST_SKIPPED, skipped


def test_every_file_of_a_page_is_used() -> None:
    for name, step in STEPS:
        if isinstance(step, File):
            assert any(
                step.name in other.text
                for page, other in STEPS
                if page == name and isinstance(other, Command) and other.line > step.line
            ), f"{name}:{step.line}: nothing uses {step.name}"


def test_every_python_block_compiles() -> None:
    for name, page in zip(NAMES, PAGES, strict=True):
        for block in re.findall(
            r"^```python\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE
        ):
            compile(block, name, "exec")


def test_table_of_options_is_made_from_the_options() -> None:
    """If it fails, ``python docs/site/options.py`` prints the table."""
    table = options_table()
    assert table in (ROOT / "docs/operations.md").read_text()
    options = Options()
    known = {option.rstrip("=") for option in options.longOpt} - {"help", "version", "longdesc"}
    assert set(re.findall(r"^\| `--([\w-]+)`", table, re.MULTILINE)) == known


def test_badges_have_the_figures_of_the_repository() -> None:
    """If this fails, run ``python docs/site/badges.py``."""
    drawn = {path.name: path.read_text(encoding="utf-8") for path in DIRECTORY.iterdir()}
    assert drawn == badges()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"docs/badges/([^)]+)", readme)) == sorted(drawn)


def test_table_of_parameters_is_that_of_the_code() -> None:
    rows = [
        f"| `{one.name}` | {one.type_name} | "
        f"{'required' if one.is_required else f'`{json.dumps(one.default)}`'} | "
        f"{one.documentation} |"
        for one in PARAMETERS
    ]
    page = (ROOT / "docs/api.md").read_text()
    head = "| parameter | type | default | meaning |\n|---|---|---|---|\n"
    assert page.partition(head)[2].partition("\n\n")[0] == "\n".join(rows)


def test_every_operation_has_a_curl_line() -> None:
    wanted = {
        (method, template)
        for template, item in PATHS.items()
        for method in item.keys() & {"get", "put", "post", "delete"}
    }
    shown = set()
    for _, step in STEPS:
        if isinstance(step, Command):
            method = re.search(r"-X (\w+)", step.text)
            for target in re.findall(r"localhost:6777(/[^\s'\"|]*)", step.text):
                shown.add((method[1].lower() if method else "get", template_of(target)))
    assert sorted(wanted - shown) == []


def test_reference_on_disk_is_up_to_date() -> None:
    current = PAGE.read_text(encoding="utf-8") == whole_page()
    assert current, "the API has changed: run python docs/site/reference.py"


def test_reference_describes_every_parameter_and_member() -> None:
    text = reference()
    for template in PATHS:
        assert f" {template}`" in text
    assert "|  |\n" not in text, "something has no meaning"
    linked = set(re.findall(r"\]\(#([\w-]+)\)", text))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    # The anchors that GitHub and MyST give to headings.
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert linked
    assert linked <= anchors


# Comparison of output

KEY = '{"task": "a@1795536540", "number": 1, "lateness_ms": 54878}'


@pytest.mark.parametrize(
    ("documented", "actual"),
    [
        (KEY, '{"task":"a@1800000000","number":1,"lateness_ms":3}'),
        ('{"number": 1, …}', '{"number":1,"more":2}'),
        ('{…, "more": 2}', '{"number":1,"more":2}'),
        ("[1, …]", "[1,2,3]"),
        ('{"a": 1}\n{"b": 2}', '{"a":1}\n{"b":2}\n'),
        ('{"detail": "no …"}', '{"detail":"no answer"}'),
        ('{"at": "2026-11-24T10:08:54.878Z"}', '{"at":"2027-01-01T00:00:00.001Z"}'),
        ("one\n…\nlast", "one\ntwo\nthree\nlast\n"),
        ("HTTP/1.1 200 OK\nA: 1\n…\n\n[]", "HTTP/1.1 200 OK\r\nB: 2\r\nA: 1\r\n\r\n[]"),
        ("HTTP/1.1 204 No Content\n…", "HTTP/1.1 204 No Content\r\nB: 2\r\n\r\n"),
    ],
)
def test_documented_response_passes_the_check(documented: str, actual: str) -> None:
    check(documented, actual, Minutes())


@pytest.mark.parametrize(
    ("documented", "actual"),
    [
        (KEY, '{"task":"b@1800000000","number":1,"lateness_ms":3}'),
        (KEY, '{"task":"a@1800000000","number":2,"lateness_ms":3}'),
        (KEY, '{"task":"a@1800000000","number":1,"lateness_ms":-3}'),
        (KEY, '{"task":"a@1800000000","number":1,"lateness_ms":3,"more":1}'),
        (KEY, '{"number":1,"task":"a@1800000000","lateness_ms":3}'),
        ('{"a": 1}', '{"a":true}'),
        ('{"a": null}', '{"a":0}'),
        ("[1, …]", "[2,3]"),
        ("[1]", "[1,2]"),
        ('{"a": 1}', '{"a":1}\n{"a":1}'),
        ('["x@1795536540", "1795536540"]', '["x@1800000000","1800000060"]'),
        ('["1795536540", "2026-11-24T16:09:00.000Z"]', '["1800000000","2027-01-15T08:01:00.000Z"]'),
        ("one\nlast", "one\ntwo\nlast\n"),
        ("HTTP/1.1 200 OK\n…", "HTTP/1.1 201 Created\r\n\r\n"),
        ("HTTP/1.1 200 OK\nA: 1\n…", "HTTP/1.1 200 OK\r\nA: 2\r\n\r\n"),
        ("HTTP/1.1 200 OK", "HTTP/1.1 200 OK\r\nA: 2\r\n\r\n"),
    ],
)
def test_response_unlike_documented_fails_the_check(documented: str, actual: str) -> None:
    with pytest.raises(AssertionError):
        check(documented, actual, Minutes())


def test_minute_in_a_command_stands_for_itself() -> None:
    minutes = Minutes()
    check('{"to": "x@1795536540"}', '{"to":"x@1800000000"}', minutes)
    assert minutes.said_in("x@1795536540 y@1858809600") == "x@1800000000 y@1858809600"
    with pytest.raises(AssertionError):
        check('"y@1858809600"', '"y@1858809660"', minutes)


def test_page_is_split_into_steps() -> None:
    page = """text
<!-- file: a.py -->

```python
print(1)
```

```console
$ curl -X PUT --data '{"a":
  1}' \\
  localhost:6777/x
{"b": 2}
$ python a.py &
```
<!-- in the log -->
```
callme stops
```
<!-- not run: it has no certificate -->
```sh
curl localhost:6777
```
"""
    found = [step for step in steps(page) if not isinstance(step, Shown)]
    command = "curl -X PUT --data '{\"a\":\n  1}' \\\n  localhost:6777/x"
    assert found == [
        File(5, "a.py", "print(1)\n"),
        Command(9, command, '{"b": 2}'),
        Command(13, "python a.py &", ""),
        Logged(17, "callme stops\n"),
        Skipped(21, "it has no certificate", "curl localhost:6777\n"),
    ]
