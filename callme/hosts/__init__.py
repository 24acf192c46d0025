"""Settings of hosts: pauses and limits of calls, their storage, and their application."""
