"""The worker: it finds due tasks, makes their calls, and records the results."""
