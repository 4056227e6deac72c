"""Adapters: one dataset a file, from its own layout to manifest rows."""

DATASETS: dict[str, str] = {
    "arrays": "Labels in arrays (npz, HDF5, pickle), for clips whose features are ready.",
    "folder": "Media files of your own plus a table of labels.",
    "mmsa": "Pickles of the MMSA family (MOSI, MOSEI, SIMS and their like): features and labels.",
    "ravdess": "RAVDESS: 1440 clips of acted speech, 8 emotions, 24 actors.",
    "synthetic": "Painted faces and synthetic voices: 240 clips of acted emotion, made from a seed.",
}
"""Adapter name (= file name) -> one-line help."""
