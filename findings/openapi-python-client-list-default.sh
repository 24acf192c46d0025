#!/usr/bin/env bash
# openapi-python-client turns the default [] of a union into the string "[]", and sends it.
#
# Version:  openapi-python-client 0.29.1.
# Expected: the default of a property that is a string or a list of strings is the one of the
#           document: an empty list. It is valid against the schema, as JSON Schema recommends
#           (validation 2020-12, section 9.2).
# Seen:     - Where the property is a list alone, the generated class has no default, so that a
#             request leaves the property out.
#           - Where it is anyOf (or oneOf) of a string and a list, the attribute's default is the
#             Python string '[]': the default is converted to the first type that takes it. Every
#             request in which the caller does not set the property contains "statuses": "[]", which
#             the server reads as a string of two brackets. The generator prints no warning.
#           So one optional property with such a default gives every request of the client another
#           meaning, or makes it invalid where strings have a pattern.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check openapi-python-client==0.29.1 2>/dev/null

cat >openapi.json <<'JSON'
{
  "openapi": "3.1.0",
  "info": {"title": "thing", "version": "1"},
  "paths": {"/thing": {"put": {
    "operationId": "putThing",
    "requestBody": {"required": true, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}}},
    "responses": {"204": {"description": "It is stored."}}
  }}},
  "components": {"schemas": {"Thing": {"type": "object", "properties": {
    "list": {"type": "array", "items": {"type": "integer"}, "default": []},
    "statuses": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}], "default": []}
  }}}}
}
JSON
venv/bin/openapi-python-client --version
venv/bin/openapi-python-client generate --path openapi.json --output-path client --meta none 2>/dev/null

sent=$(venv/bin/python -c "
import json
from client.models import Thing
print(json.dumps(Thing().to_dict()))")
echo "the body of a request in which nothing is set: $sent"
if [ "$sent" = '{"statuses": "[]"}' ]; then
    echo "as described"
else
    echo "no longer as described" >&2
    exit 1
fi
