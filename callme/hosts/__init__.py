"""Settings of hosts: pauses and limits of calls, how they are stored, and how they are applied."""
