"""Measurements: .venv/bin/python -m benchmarks.NAME --json FILE."""
