"""Timings and memory, measured apart from the tests."""
