"""Benchmarks, experiments, published figures and the demo."""
