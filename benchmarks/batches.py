"""A client that POSTs batches: ``python -m benchmarks.batches PORT BATCHES PREFIX``.

It prints the tasks per second of all batches except the first.
"""

from __future__ import annotations

import http.client
import json
import statistics
import sys
import time

TASKS = 10_000


def post(connection: http.client.HTTPConnection, tasks: list[dict[str, str]]) -> float:
    """Put tasks in one batch; return the seconds until the response."""
    body = json.dumps(tasks)
    began = time.perf_counter()
    connection.request("POST", "/batch", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200
    return time.perf_counter() - began


def main(port: int, batches: int, prefix: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    rates = []
    for batch in range(batches):
        tasks = [
            {
                "task_name": f"{prefix}{batch}-{number}",
                "trigger_at": f"+{60 + number % 1440}m",
                "callback": "http://localhost:9/x",
            }
            for number in range(TASKS)
        ]
        rates.append(TASKS / post(connection, tasks))
    connection.close()
    print(f"{statistics.median(rates[1:] or rates):.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
