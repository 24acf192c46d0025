"""Use the Python client that openapi-generator generated: put, list, show, reschedule, delete."""

from __future__ import annotations

import sys

from python_generated import ApiClient, Configuration, DaemonApi, TasksApi
from python_generated.exceptions import ApiException
from python_generated.models import (
    NewHostSettings,
    NewTask,
    NewTaskPayload,
    NewTaskRetryDelay,
    NewTime,
    PutPreview,
    PutResult,
    Task,
    Time,
)

NAME = "jour fixe & ünïcode"
AT = "1858809600"
URL = "http://127.0.0.1:1/run-it"

client = ApiClient(Configuration(host=sys.argv[1]))
tasks, daemon = TasksApi(client), DaemonApi(client)


def status_of(call: object, *arguments: object) -> int:
    try:
        call(*arguments)
    except ApiException as error:
        return error.status
    return 200


# Put
new = NewTask(
    callback=URL,
    trigger_at=Time(AT),
    callback_method="POST",
    payload=NewTaskPayload({"to": "ada"}),
    labels={"customer": "42"},
    retry_delay=NewTaskRetryDelay([1, 5]),
)
created = tasks.put_task_of_name_with_http_info(NAME, new)
assert created.status_code == 201
assert (created.data.task_name, created.data.trigger_at) == (NAME, AT)
assert created.data.payload == '{"to":"ada"}'
repeated = tasks.put_task_of_name_with_http_info(NAME, new)
assert (repeated.status_code, type(repeated.data.actual_instance)) == (200, Task)
assert status_of(tasks.put_task_of_key, NAME, AT, NewTask(callback=URL)) == 409
preview = tasks.put_task(NewTask(task_name="b", trigger_at=Time("+6h"), callback=URL), dry_run=True)
assert isinstance(preview.actual_instance, PutPreview)
assert preview.actual_instance.would == "create"
assert status_of(tasks.put_task, NewTask(callback=URL)) == 422
batch = [
    NewTask(task_name=NAME, trigger_at=Time(str(int(AT) + 60 * n)), callback=URL)
    for n in range(1, 4)
]
results = tasks.put_batch(batch)
assert [type(one.actual_instance) for one in results] == [PutResult] * 3

# List
listed, following = [], None
while True:
    page = tasks.get_status_of_name(NAME, limit=3, start_from=following)
    listed += [task.trigger_at for task in page.tasks]
    following = page.next
    if following is None:
        break
assert listed == [str(int(AT) + 60 * n) for n in range(4)]

# Show
shown = tasks.get_task(NAME, AT)
assert (shown.labels, shown.state.value, shown.attempts) == ({"customer": "42"}, "scheduled", [])
assert status_of(tasks.get_task, "missing", AT) == 404

# Reschedule
later = str(int(AT) + 3600)
moved = tasks.reschedule_task(NAME, AT, all=True, new_time=NewTime(trigger_at=Time(later)))
assert [(one.var_from, one.to) for one in moved.rescheduled] == [
    (f"{NAME}@{AT}", f"{NAME}@{later}")
]

# Delete
assert tasks.delete_task_with_http_info(NAME, later).status_code == 204
assert tasks.delete_tasks_of_name(NAME).deleted == 3

# The daemon
settings = daemon.put_host("127.0.0.1:1", NewHostSettings(max_per_minute=600))
assert (settings.host, settings.max_per_minute) == ("127.0.0.1:1", 600)
assert daemon.health().status == "ok"
