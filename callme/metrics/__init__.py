"""What callme counts, and how it tells: the one place that knows Prometheus."""
