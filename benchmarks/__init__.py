"""Benchmarks: one list of shapes, one timer, one file per question. `python -m benchmarks layer` runs the first."""
