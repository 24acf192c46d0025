"""Forecasts and history, read once for all clients that ask."""
