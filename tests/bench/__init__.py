"""Benchmarks: anyone can run them, each against a baseline in the same run, repeated and interleaved."""
