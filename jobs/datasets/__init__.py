"""Adapters: one dataset a file, from its own layout to manifest rows."""

DATASETS: dict[str, str] = {
    "folder": "Media files of your own plus a table of labels.",
    "ravdess": "RAVDESS: 1440 clips of acted speech, 8 emotions, 24 actors.",
}
"""Adapter name (= file name) -> one-line help."""
