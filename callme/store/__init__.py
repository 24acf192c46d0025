"""Where tasks live: the port that callme sees, and the databases behind it."""
