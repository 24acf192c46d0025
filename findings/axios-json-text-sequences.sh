#!/usr/bin/env bash
# axios rewrites a string body whose media type merely begins with "application/json".
#
# Version:  axios 1.21.1 on node 20.
# Expected: a string is the body as it is, as with application/x-ndjson. application/json-seq is a
#           media type of its own (RFC 7464, sections 2 and 4): records between RS and LF, which are
#           not one JSON text. The media type application/jsonl is used for JSON lines likewise.
# Seen:     axios looks for the substring "application/json" in Content-Type (transformRequest in
#           lib/defaults/index.js). If it is there, axios tries to parse the string as one JSON text.
#           - If that fails, it sends JSON.stringify(string): two lines arrive as one quoted string.
#           - If it succeeds, it sends the string trimmed: one line arrives without its LF.
#           So the same code works with one record a request, and fails with two. The server
#           receives valid JSON and the declared Content-Type. A Buffer is sent as it is.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --ignore-scripts axios@1.21.1

cat >try.mjs <<'JS'
import { createServer } from "node:http";
import axios, { VERSION } from "axios";

const one = '{"a":1}\n';
const two = '{"a":1}\n{"b":2}\n';
const sequence = '\x1e{"a":1}\n\x1e{"b":2}\n';
const cases = [
  ["application/x-ndjson", two, two],
  ["application/jsonl", one, one.trim()],
  ["application/jsonl", two, JSON.stringify(two)],
  ["application/jsonl", Buffer.from(two), two],
  ["application/json-seq", sequence, JSON.stringify(sequence)],
  ["application/json-seq", Buffer.from(sequence), sequence],
];
let received;
const server = createServer(async (request, response) => {
  received = [request.headers["content-type"], ""];
  for await (const part of request) received[1] += part;
  response.end("ok");
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const url = `http://127.0.0.1:${server.address().port}/`;
console.log(`axios ${VERSION}, node ${process.versions.node}`);
for (const [type, body, seen] of cases) {
  await axios.post(url, body, { headers: { "Content-Type": type } });
  const kind = typeof body === "string" ? "string" : "Buffer";
  console.log(`${type}, ${kind}`);
  console.log(`  sent     ${JSON.stringify(body.toString())}`);
  console.log(`  received ${JSON.stringify(received[1])}`);
  if (received[0] !== type || received[1] !== seen) process.exitCode = 1;
}
server.close();
JS
if node try.mjs; then
    echo "as described"
else
    echo "no longer as described" >&2
    exit 1
fi
