"""Benchmarks of kspark, one folder each. `README.md` lists them.

Run them from the project's root, for example `python -m benchmarks.training --help`.
"""
