"""Load tests and benchmarks against peers."""
