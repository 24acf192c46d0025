"""Lists of tasks: their filters, the indexes that filters use, and the queries of pages."""
