"""Lists of tasks: filters, the indexes that answer them, and the queries of pages."""
