"""The encoder of compact JSON: no white space, and no escapes of what UTF-8 can express."""

from __future__ import annotations

import json

encode_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""Returns a value as JSON. For these options, :func:`json.dumps` makes an encoder each time."""
