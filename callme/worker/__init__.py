"""The worker, which finds due tasks, makes their calls, and records the results."""
