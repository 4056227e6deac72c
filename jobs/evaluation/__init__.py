"""Evaluation: result tables, baselines, leak probes, learning curves, comparisons."""
