// A tool for Node drains due jobs into an endpoint: node peers.mjs TOOL URL JOBS STORE, beside its
// package. STORE is the port of a Redis server, or the URL of a PostgreSQL database. Prints calls
// per second.
import http from "node:http";

const [tool, url, jobs, store] = [process.argv[2], process.argv[3], Number(process.argv[4]), process.argv[5]];
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

// Each stores the jobs, and returns a function that starts its worker; the worker counts.
const tools = {
  async bullmq(count) {
    const { Queue, Worker } = await import("bullmq");
    const { Redis } = await import("ioredis");
    const connection = new Redis(Number(store), "127.0.0.1", { maxRetriesPerRequest: null });
    const queue = new Queue("calls", { connection });
    await queue.addBulk(Array.from({ length: jobs }, () => ({ name: "call", data: {}, opts: { attempts: 2 } })));
    return () => new Worker("calls", () => get().then(count), { connection, concurrency: 64 });
  },
  async "pg-boss"(count) {
    const { default: PgBoss } = await import("pg-boss");
    const boss = new PgBoss(store);
    await boss.start();
    await boss.createQueue("calls");
    await boss.insert(Array.from({ length: jobs }, () => ({ name: "calls", retryLimit: 1 })));
    const options = { batchSize: 64, pollingIntervalSeconds: 0.5 };
    return () => boss.work("calls", options, (batch) => Promise.all(batch.map(() => get().then(count))));
  },
  async "graphile-worker"(count) {
    const { makeWorkerUtils, run } = await import("graphile-worker");
    const utils = await makeWorkerUtils({ connectionString: store });
    await utils.migrate();
    for (let job = 0; job < jobs; job += 1) await utils.addJob("call", {}, { maxAttempts: 2 });
    const options = { connectionString: store, concurrency: 64, maxPoolSize: 64 };
    return () => run({ ...options, taskList: { call: () => get().then(count) } });
  },
};

let left = jobs;
let end;
const ended = new Promise((resolve) => (end = resolve));
const start = await tools[tool](() => {
  left -= 1;
  if (left === 0) end();
});
const began = performance.now();
await start();
await ended;
console.log((jobs / ((performance.now() - began) / 1000)).toFixed(1));
process.exit(0);
