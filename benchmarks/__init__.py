"""Benchmarks: ``python -m benchmarks.<name>``, peers side by side in one run."""
