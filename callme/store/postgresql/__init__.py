"""The store in PostgreSQL, which any number of daemons share.

Needs psycopg, which callme has as an optional extra: ``pip install 'callme-daemon[postgresql]'``.
"""
