"""Rows of import files, NDJSON and CSV, and the batches that they make."""

from __future__ import annotations

import pytest

from callme.cli.rows import MAX_BATCH_BYTES, MAX_BATCH_TASKS, Row, batches, csv_rows, ndjson_rows


def test_ndjson_has_one_task_per_line() -> None:
    rows = list(ndjson_rows(['\ufeff{"a": 1}\n', "\n", "{wrong\n", "[]\n", '{"b": 2}']))
    assert [(row.number, row.task) for row in rows] == [
        (1, {"a": 1}),
        (3, None),
        (4, None),
        (5, {"b": 2}),
    ]
    assert rows[1].error.startswith("it is not JSON: Expecting property name")
    assert rows[1].error.endswith(" at column 2")
    assert rows[2].error == "it is not an object"


def test_csv_has_the_parameters_in_its_first_row() -> None:
    text = (
        "\ufefftask_name,trigger_at,retry,expected_http_status,payload,header.Accept,label.a,labels\n"
        'x,1858809600,3,2xx,"{""n"":1}",text/plain,1,\n'
        "y,+6h,,,,,,\n"
    )
    first, second = csv_rows(text.splitlines(keepends=True))
    assert first.task == {
        "task_name": "x",
        "trigger_at": "1858809600",
        "retry": 3,
        "expected_http_status": "2xx",
        "payload": '{"n":1}',
        "headers": {"Accept": "text/plain"},
        "labels": {"a": "1"},
    }
    assert (second.number, second.task) == (3, {"task_name": "y", "trigger_at": "+6h"})


def test_csv_row_with_too_many_cells_is_an_error() -> None:
    (row,) = csv_rows(["task_name\n", "a,b\n"])
    assert row.task is None
    assert "more cells" in row.error


@pytest.mark.parametrize("lines", [[], ["name,when\n", "a,b\n"]])
def test_csv_without_names_is_refused(lines: list[str]) -> None:
    with pytest.raises(ValueError, match="task_name"):
        list(csv_rows(lines))


def test_batches_respect_both_bounds() -> None:
    many = [Row(number=n, size=1, task={}) for n in range(MAX_BATCH_TASKS + 1)]
    assert [len(group) for group in batches(many)] == [MAX_BATCH_TASKS, 1]
    large = [Row(number=n, size=MAX_BATCH_BYTES // 2 + 1, task={}) for n in range(3)]
    assert [len(group) for group in batches(large)] == [1, 1, 1]
    assert list(batches([])) == []
