// express, with its JSON parser. Arguments: the folder of the packages, the port.
import { appendFileSync } from "node:fs";
import { createRequire } from "node:module";

const express = createRequire(`${process.argv[2]}/`)("express");
const app = express();
app.use((request, response, next) => {
  appendFileSync(process.env.INTEROP_RECORD, `${request.headers["idempotency-key"] ?? ""}\n`);
  next();
});
app.all("/unread", (request, response) => response.send("ok"));
app.use(express.json());
app.all("/{*path}", (request, response) => response.send("ok"));
app.listen(Number(process.argv[3]), "127.0.0.1");
