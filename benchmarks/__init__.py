"""How fast callme is, as ratios to what it is made of: see docs/performance.md."""
