"""Benchmarks: `make bench` runs `python -m benchmarks.bench`. No other code imports them."""
