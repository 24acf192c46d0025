"""The duration of ``GET /status/`` for a page of 100 tasks, anywhere in the list.

``python -m benchmarks.pages PORT SECONDS [--burst URL]`` prints JSON: the duration in milliseconds,
and the number of tasks that were still to be called. With a URL, it measures while callme calls
5,000 tasks that are due at the same time.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import time

from .batches import post
from .fill import SPREAD

TASKS = 5_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--burst")
    asked = parser.parse_args()
    connection = http.client.HTTPConnection("127.0.0.1", asked.port, timeout=60)

    def get(path: str) -> bytes:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        return body

    if asked.burst:
        name = f"burst{time.time():.0f}-"
        due = {"trigger_at": "+0m", "callback": asked.burst}
        post(connection, [{"task_name": f"{name}{number}", **due} for number in range(TASKS)])
    end = time.perf_counter() + asked.seconds
    took = []
    while time.perf_counter() < end:
        start = f"task{random.randrange(SPREAD)}@0"
        began = time.perf_counter()
        get(f"/status/?start_from={start}")
        took.append((time.perf_counter() - began) * 1000)
    left = json.loads(get("/healthz"))["backlog"]
    took.sort()
    count = len(took)
    print(json.dumps({"p50": took[count // 2], "p99": took[count * 99 // 100], "to_call": left}))


if __name__ == "__main__":
    main()
