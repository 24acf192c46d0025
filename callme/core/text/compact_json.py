"""The encoder of compact JSON, without white space, and without escapes where UTF-8 suffices."""

from __future__ import annotations

import json

encode_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""Return a value as compact JSON. :func:`json.dumps` would create an encoder for each call."""
