// node's own HTTP server. Arguments: the port.
import { appendFileSync } from "node:fs";
import { createServer } from "node:http";

createServer((request, response) => {
  appendFileSync(process.env.INTEROP_RECORD, `${request.headers["idempotency-key"] ?? ""}\n`);
  if (request.url === "/unread") return response.end("ok");
  request.resume().on("end", () => response.end("ok"));
}).listen(Number(process.argv[2]), "127.0.0.1");
