"""Benchmarks, with results as ratios to comparable programs: see docs/performance.md."""
