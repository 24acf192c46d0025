"""Tokens, sessions, signatures, and which hosts and addresses may be reached."""
