"""The web UI for the operator: dashboard, task pages, search and forms."""
