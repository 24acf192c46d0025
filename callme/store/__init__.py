"""The store of tasks: its interface, queries and operations, and the two databases."""
