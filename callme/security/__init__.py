"""Security: tokens, sessions, signatures, secret files, and policies on hosts and addresses."""
