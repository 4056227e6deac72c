"""Adapters: one dataset a file, from its own layout to manifest rows."""

DATASETS: dict[str, str] = {}
"""Adapter name (= file name) -> one-line help."""
