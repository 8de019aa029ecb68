"""Scores of a multi-label task, and the files that a test writes."""
