"""The operator's pages: what is due, what happened, what failed, and what to do about it."""
