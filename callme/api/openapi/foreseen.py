"""What callme answers of what is not yet: dry runs and the forecast."""

from __future__ import annotations

from ...core.forecast import MAX_CROWDED
from ..foresight import MOST_IN_BATCH
from .notation import Schema, answered, integer, listed, or_null, ref, string


def schemas() -> dict[str, Schema]:
    """Return what callme answers, by name."""
    return {
        "Foreseen": _foreseen(),
        "Forecast": _forecast(),
        "Rate": answered(
            {
                "calls_per_second": {
                    "type": "number",
                    "minimum": 0,
                    "description": "Calls that start, and end, in a second.",
                },
                "measured": {
                    "type": "boolean",
                    "description": "Whether calls were seen that it comes from; else it is reckoned"
                    " of the limits and what is known of other calls.",
                },
            },
            description="How many calls this daemon makes in a second where there are enough.",
        ),
        "CrowdedMinute": answered(
            {
                "minute": _time("When they are due."),
                "calls": integer(1, description="How many are due then."),
                "lateness_ms": integer(0, description="When the last of them would start."),
                "too_late": integer(1, description="How many at most would start too late."),
            }
        ),
    }


def _foreseen() -> Schema:
    members: dict[str, Schema] = {
        "dry_run": {"const": True, "description": "Nothing was done."},
        "status": {"type": "integer", "enum": [200, 201], "description": "That of the true `PUT`."},
        "would": string(
            "Create the task, replace its definition, or keep it as it is.",
            enum=["create", "replace", "keep"],
        ),
        "task": ref("ListedTask")
        | {"description": "As it would stand, its payload too; in a batch without."},
        "attempts_at": listed(
            _time(),
            description="The minute of each attempt, if all fail within their own; in a batch the"
            f" first {MOST_IN_BATCH}.",
        ),
        "starts_before": _time("No request starts then or later."),
        "calls_in_minute": integer(1, description="How many tasks are due then, it among them."),
        "calls_to_host": integer(1, description="... of them to its host and port."),
        "lateness_ms": integer(
            0, description="When the last of them would start, if nothing is left over from before."
        ),
        "rate": ref("Rate"),
        "host_rate": ref("Rate"),
    }
    return answered(
        members,
        optional=members.keys() - {"dry_run", "status", "would", "task"},
        description="The answer to a dry run. Where the task is kept, nothing is foreseen.",
    )


def _forecast() -> Schema:
    by_host = answered(
        {
            "host": or_null(string("A host and port; null for all calls of this daemon.")),
            "rate": ref("Rate"),
            "minutes": listed(ref("CrowdedMinute"), description="By time."),
        }
    )
    return answered(
        {
            "counted_at": _time("When that was looked up: whoever asks soon is told the same."),
            "from": _time("The minute that it was then."),
            "until": _time("What is due from then on is left out."),
            "calls": integer(0, description="In all; those that wait already among them."),
            "rate": ref("Rate"),
            "minutes": listed(
                answered(
                    {
                        "minute": _time("When they are due."),
                        "calls": integer(1, description="How many are due then."),
                    }
                ),
                description="Those that have calls.",
            ),
            "crowded": listed(
                by_host,
                description="The minutes whose calls cannot all start within their `max_delay`, at"
                f" most {MAX_CROWDED:,}.",
            ),
            "complete": {
                "type": "boolean",
                "description": "Whether that is all; else there was too much to look at.",
            },
        }
    )


def _time(description: str = "") -> Schema:
    return string(description, format="date-time")
