"""What several benchmarks share: options, data, models, measured processes and tables."""
