"""Pages about many tasks: lists with filters, failures in groups, bulk actions, and hosts."""
