"""The HTTP API: parsing of requests, handlers, responses, and the OpenAPI document."""
