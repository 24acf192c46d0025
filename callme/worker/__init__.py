"""The scheduler, and all that runs between its tick and a recorded attempt."""
