// fastify, which parses JSON by itself. Arguments: the folder of the packages, the port.
import { appendFileSync } from "node:fs";
import { createRequire } from "node:module";

const fastify = createRequire(`${process.argv[2]}/`)("fastify")();
fastify.addHook("onRequest", async (request) => {
  appendFileSync(process.env.INTEROP_RECORD, `${request.headers["idempotency-key"] ?? ""}\n`);
});
fastify.all("/*", async () => "ok");
await fastify.listen({ port: Number(process.argv[3]), host: "127.0.0.1" });
