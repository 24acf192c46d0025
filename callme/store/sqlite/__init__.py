"""The store in a SQLite file, which belongs to one daemon."""
