"""The modules in which a fault hurts, and the tests that must notice it."""

from __future__ import annotations

from attrs import frozen


@frozen(kw_only=True)
class Target:
    """Modules, and their tests.

    :ivar modules: paths relative to the root of the repository, as ``tests`` are.
    :ivar tests: files and directories.
    :ivar on_postgresql: whether the tests that are run are those on PostgreSQL.
    """

    modules: tuple[str, ...]
    tests: tuple[str, ...]
    on_postgresql: bool = False


_SIMULATION = "tests/simulation/test_simulation.py"
# They test the simulation itself.
_LEFT_OUT = ("test_mutation_of_callme_is_detected", "test_seed_determines_the_history")

TARGETS = (
    Target(
        modules=("callme/core/transitions.py",),
        tests=("tests/unit/core/test_transitions.py", "tests/unit/worker", _SIMULATION),
    ),
    Target(
        modules=(
            "callme/worker/dispatcher.py",
            "callme/worker/fair_share.py",
            "callme/worker/host_memory.py",
            "callme/worker/poller.py",
            "callme/worker/pruner.py",
            "callme/worker/recorder.py",
            "callme/worker/scheduler.py",
            "callme/worker/slots.py",
            "callme/hosts/limits.py",
        ),
        tests=("tests/unit/worker", "tests/unit/hosts", "tests/http/test_hosts.py", _SIMULATION),
    ),
    Target(
        modules=(
            "callme/store/changes.py",
            "callme/store/group_commit.py",
            "callme/store/queue.py",
            "callme/store/sqlite/bulk.py",
            "callme/store/tasks.py",
        ),
        tests=(
            "tests/store_contract/test_store.py",
            "tests/store_contract/test_sqlite.py",
            "tests/store_contract/test_hosts.py",
            "tests/unit/store",
            "tests/unit/worker",
            "tests/http/test_api.py",
            "tests/http/test_notifications.py",
            _SIMULATION,
        ),
    ),
    Target(
        modules=(
            "callme/store/postgresql/membership.py",
            "callme/store/postgresql/queue.py",
            "callme/store/postgresql/tasks.py",
        ),
        tests=(
            "tests/store_contract/test_store.py",
            "tests/store_contract/test_postgresql.py",
            "tests/store_contract/test_postgresql_faults.py",
        ),
        on_postgresql=True,
    ),
    Target(
        modules=(
            "callme/caller/call.py",
            "callme/caller/connection.py",
            "callme/caller/failures.py",
            "callme/caller/pool.py",
            "callme/caller/response.py",
            "callme/caller/timer_wheel.py",
        ),
        tests=("tests/unit/caller", "tests/caller"),
    ),
    Target(
        modules=(
            "callme/security/login_throttle.py",
            "callme/server/channel.py",
            "callme/server/connection_limits.py",
            "callme/server/refusals.py",
            "callme/server/site.py",
        ),
        tests=(
            "tests/unit/server",
            "tests/unit/security/test_login_throttle.py",
            "tests/http/test_audit.py",
            "tests/http/test_auth.py",
            "tests/http/test_base_path.py",
            "tests/http/test_site.py",
            "tests/http/test_hostile.py",
            "tests/http/test_login.py",
        ),
    ),
)


def is_test_of(target: Target, node_id: str) -> bool:
    """Return whether a test, collected from the files of a target, is one of its tests."""
    return target.on_postgresql == ("postgresql" in node_id) and not node_id.partition("::")[
        2
    ].startswith(_LEFT_OUT)
