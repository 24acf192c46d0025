// node's own fetch. Arguments: METHOD URL [TYPE FILE]; an empty TYPE leaves the header to fetch.
import { readFileSync } from "node:fs";

const [method, url, type, file] = process.argv.slice(2);
const body = file && readFileSync(file, "utf8");
const headers = type ? { "Content-Type": type } : {};
const response = await fetch(url, { method, body, headers });
console.log(response.status);
