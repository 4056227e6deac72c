"""Judging: result tables, baselines, leaks, learning curves, comparisons."""
