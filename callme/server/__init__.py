"""The HTTP server below the API and the web UI: connections, limits, authentication."""
