"""Benchmarks of callmood. Each prints a table of figures that were measured in one run."""
