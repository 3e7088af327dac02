"""Measures this project and its peers: `python -m benchmarks --help`."""
