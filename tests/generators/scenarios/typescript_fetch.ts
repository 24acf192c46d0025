// Use the TypeScript client that openapi-generator generated: put, list, show, reschedule, delete.
import { Configuration, DaemonApi, ResponseError, TasksApi } from "./client/index";

declare const process: { argv: string[] };
const name = "jour fixe & ünïcode";
const at = 1858809600;
const url = "http://127.0.0.1:1/run-it";
const configuration = new Configuration({ basePath: process.argv[2] });
const tasks = new TasksApi(configuration);
const daemon = new DaemonApi(configuration);

function equal(value: unknown, expected: unknown): void {
  const [one, other] = [JSON.stringify(value), JSON.stringify(expected)];
  if (one !== other) throw new Error(`${one}, expected ${other}`);
}

async function statusOf(call: Promise<unknown>): Promise<number> {
  try {
    await call;
  } catch (error) {
    if (error instanceof ResponseError) return error.response.status;
    throw error;
  }
  return 200;
}

async function main(): Promise<void> {
  // Put
  const newTask = {
    callback: url,
    triggerAt: String(at),
    callbackMethod: "POST",
    payload: { to: "ada" },
    labels: { customer: "42" },
    retryDelay: [1, 5],
  };
  const created = await tasks.putTaskOfNameRaw({ taskName: name, newTask });
  equal(created.raw.status, 201);
  const task = await created.value();
  if (!("taskName" in task)) throw new Error("not a task");
  equal([task.taskName, task.triggerAt, task.payload], [name, String(at), '{"to":"ada"}']);
  const repeated = await tasks.putTaskOfNameRaw({ taskName: name, newTask });
  equal([repeated.raw.status, "taskName" in (await repeated.value())], [200, true]);
  const other = { taskName: name, triggerAt: String(at), newTask: { callback: url } };
  equal(await statusOf(tasks.putTaskOfKey(other)), 409);
  const next = { taskName: "b", triggerAt: "+6h", callback: url };
  const preview = await tasks.putTask({ newTask: next, dryRun: true });
  if (!("would" in preview)) throw new Error("not a preview");
  equal([preview.would, preview.task.taskName], ["create", "b"]);
  equal(await statusOf(tasks.putTask({ newTask: { callback: url } })), 422);
  const minutes = [1, 2, 3].map((minute) => at + 60 * minute);
  const batch = minutes.map((triggerAt) => ({ taskName: name, triggerAt, callback: url }));
  const results = await tasks.putBatch({ newTask: batch });
  equal(results.map((result) => result.status), [201, 201, 201]);

  // List
  const listed: unknown[] = [];
  let startFrom: string | undefined;
  do {
    const page = await tasks.getStatusOfName({ taskName: name, limit: 3, startFrom });
    listed.push(...page.tasks.map((one) => one.triggerAt));
    startFrom = page.next;
  } while (startFrom !== undefined);
  equal(listed, [at, ...minutes].map(String));

  // Show
  const shown = await tasks.getTask({ taskName: name, triggerAt: String(at) });
  equal([shown.labels, shown.state, shown.attempts], [{ customer: "42" }, "scheduled", []]);
  equal(await statusOf(tasks.getTask({ taskName: "missing", triggerAt: String(at) })), 404);

  // Reschedule
  const later = String(at + 3600);
  const key = { taskName: name, triggerAt: String(at) };
  const moved = await tasks.rescheduleTask({ ...key, all: true, newTime: { triggerAt: later } });
  equal(moved.rescheduled, [{ from: `${name}@${at}`, to: `${name}@${later}` }]);

  // Delete
  const deleted = await tasks.deleteTaskRaw({ taskName: name, triggerAt: later });
  equal(deleted.raw.status, 204);
  equal((await tasks.deleteTasksOfName({ taskName: name })).deleted, 3);

  // The daemon
  const newHostSettings = { maxPerMinute: 600 };
  const settings = await daemon.putHost({ host: "127.0.0.1:1", newHostSettings });
  equal([settings.host, settings.maxPerMinute], ["127.0.0.1:1", 600]);
  equal((await daemon.health()).status, "ok");
}

main().catch((error) => {
  console.error(error);
  (process as { exitCode?: number }).exitCode = 1;
});
