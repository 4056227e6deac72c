"""Metrics, one convention a function."""

METRICS: dict[str, str] = {}
"""Metric name -> `module:function`."""
