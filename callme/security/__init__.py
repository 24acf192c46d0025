"""Security: tokens, sessions, signatures, secret files, and the hosts and addresses allowed."""
