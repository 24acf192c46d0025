"""Use the client that openapi-python-client generated: put, list, show, reschedule, delete."""

from __future__ import annotations

import sys
from http import HTTPStatus

from python_client import Client
from python_client.api.daemon import health, put_host
from python_client.api.tasks import (
    delete_task,
    delete_tasks_of_name,
    get_status_of_name,
    get_task,
    put_batch,
    put_task,
    put_task_of_key,
    put_task_of_name,
    reschedule_task,
)
from python_client.models import (
    NewHostSettings,
    NewTask,
    NewTaskLabels,
    NewTaskPayloadType1,
    NewTime,
    Problem,
    PutPreview,
    PutProblem,
    PutResult,
    Task,
    TaskList,
)

NAME = "jour fixe & ünïcode"
AT = "1858809600"
URL = "http://127.0.0.1:1/run-it"

client = Client(base_url=sys.argv[1], raise_on_unexpected_status=True)

# Put
new = NewTask(
    callback=URL,
    trigger_at=AT,
    callback_method="POST",
    payload=NewTaskPayloadType1.from_dict({"to": "ada"}),
    labels=NewTaskLabels.from_dict({"customer": "42"}),
    retry_delay=[1, 5],
)
created = put_task_of_name.sync_detailed(NAME, client=client, body=new)
assert created.status_code == HTTPStatus.CREATED
assert isinstance(created.parsed, Task)
assert (created.parsed.task_name, created.parsed.trigger_at) == (NAME, AT)
assert created.parsed.payload == '{"to":"ada"}'
repeated = put_task_of_name.sync_detailed(NAME, client=client, body=new)
assert (repeated.status_code, type(repeated.parsed)) == (HTTPStatus.OK, Task)
conflict = put_task_of_key.sync(NAME, AT, client=client, body=NewTask(callback=URL))
assert isinstance(conflict, PutProblem)
assert (conflict.status, conflict.task.task) == (409, f"{NAME}@{AT}")
preview = put_task.sync(
    client=client, body=NewTask(task_name="b", trigger_at="+6h", callback=URL), dry_run=True
)
assert isinstance(preview, PutPreview)
assert (preview.would.value, preview.task.task_name) == ("create", "b")
wrong = put_task.sync(client=client, body=NewTask(callback="nowhere"))
assert isinstance(wrong, Problem)
assert [error.pointer for error in wrong.errors] == ["/callback", "/task_name", "/trigger_at"]
batch = [NewTask(task_name=NAME, trigger_at=int(AT) + 60 * n, callback=URL) for n in range(1, 4)]
results = put_batch.sync(client=client, body=batch)
assert [type(one) for one in results] == [PutResult] * 3

# List
listed, start_from = [], {}
while True:
    page = get_status_of_name.sync(NAME, client=client, limit=3, **start_from)
    assert isinstance(page, TaskList)
    listed += [task.trigger_at for task in page.tasks]
    if not page.next_:
        break
    start_from = {"start_from": page.next_}
assert listed == [str(int(AT) + 60 * n) for n in range(4)]

# Show
shown = get_task.sync(NAME, AT, client=client)
assert isinstance(shown, Task)
assert (shown.labels.to_dict(), shown.state.value, shown.attempts) == (
    {"customer": "42"},
    "scheduled",
    [],
)
missing = get_task.sync("missing", AT, client=client)
assert (type(missing), missing.status) == (Problem, 404)

# Reschedule
later = str(int(AT) + 3600)
moved = reschedule_task.sync(NAME, AT, client=client, body=NewTime(trigger_at=later), all_=True)
assert [(one.from_, one.to) for one in moved.rescheduled] == [(f"{NAME}@{AT}", f"{NAME}@{later}")]

# Delete
assert delete_task.sync_detailed(NAME, later, client=client).status_code == HTTPStatus.NO_CONTENT
assert delete_tasks_of_name.sync(NAME, client=client).deleted == 3

# The daemon
settings = put_host.sync("127.0.0.1:1", client=client, body=NewHostSettings(max_per_minute=600))
assert (settings.host, settings.max_per_minute, settings.paused) == ("127.0.0.1:1", 600, False)
assert health.sync(client=client).status.value == "ok"
