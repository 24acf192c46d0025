"""Prometheus metrics: counters, gauges and their exporter."""
