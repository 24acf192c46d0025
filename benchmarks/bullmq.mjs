// BullMQ drains due jobs into an endpoint: node bullmq.mjs URL JOBS, beside its package and a Redis
// server on port 6379. Prints calls per second.
import http from "node:http";
import { Queue, Worker } from "bullmq";
import { Redis } from "ioredis";

const [url, jobs] = [process.argv[2], Number(process.argv[3])];
const connection = new Redis(6379, "127.0.0.1", { maxRetriesPerRequest: null });
const agent = new http.Agent({ keepAlive: true, maxSockets: 64 });
const get = () =>
  new Promise((resolve, reject) => {
    http
      .get(url, { agent }, (response) => {
        response.resume();
        response.on("end", () => (response.statusCode === 200 ? resolve() : reject(response.statusCode)));
      })
      .on("error", reject);
  });

const queue = new Queue("calls", { connection });
await queue.obliterate({ force: true });
await queue.addBulk(Array.from({ length: jobs }, () => ({ name: "call", data: {}, opts: { attempts: 2 } })));
let left = jobs;
const began = performance.now();
await new Promise((done) => {
  new Worker("calls", async () => {
    await get();
    left -= 1;
    if (left === 0) done();
  }, { connection, concurrency: 64 });
});
console.log((jobs / ((performance.now() - began) / 1000)).toFixed(1));
process.exit(0);
