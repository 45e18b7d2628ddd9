"""How fast it is: `python -m benchmarks.bench`, which `make bench` runs. Nothing imports this."""
