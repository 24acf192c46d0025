"""The store in PostgreSQL, which any number of daemons share.

It needs psycopg, an optional extra: ``pip install 'callme-daemon[postgresql]'``.
"""
