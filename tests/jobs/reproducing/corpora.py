"""Small copies of published datasets in their official layouts, with something to learn in them."""

import csv
import pickle

import numpy as np

from tests.jobs.datasets.official_layouts import VOTES, write_csv

WIDTHS = {"text": 768, "audio": 74, "vision": 35}


def arrays_of(value, steps, widths, draws, *, signal=1.0):
    """Features [clip step width] whose first numbers hold the value."""
    arrays = {}
    for name, width in widths.items():
        noise = draws.standard_normal((len(value), steps, width)).astype(np.float32)
        noise[:, :, :3] += signal * np.asarray(value, np.float32)[:, None, None]
        arrays[name] = noise
    return arrays


def influencers(file, *, parts=("train", "valid", "test"), clips=20, steps=4):
    """`empathy_test_data.pkl`."""
    draws = np.random.default_rng(0)
    content = {}
    for part in parts:
        score = draws.uniform(-3, 3, clips)
        content[part] = arrays_of(score, steps, WIDTHS, draws) | {
            "labels": score, "info": [{"video": k} for k in range(clips)],
        }  # fmt: skip
    file.write_bytes(pickle.dumps(content))
    return file


def mmsa(folder, *, kinds=("aligned_50",), bound=3.0, clips=18):
    """`Processed/*.pkl`: videos of three clips each; the features of each kind have lengths of their own."""
    draws = np.random.default_rng(1)
    parts = {"train": clips, "valid": clips, "test": clips}
    value = {part: draws.uniform(-bound, bound, count) for part, count in parts.items()}
    for kind in kinds:
        content = {}
        for part, count in parts.items():
            widths = {"text": 12, "audio": 5, "vision": 6}
            content[part] = arrays_of(value[part] / bound, 5, widths, draws, signal=2.0) | {
                "id": [f"{part}{k // 3}$_${k % 3}" for k in range(count)],
                "raw_text": np.array(["so"] * count),
                "regression_labels": value[part],
            }
        path = folder / "Processed" / f"{kind}.pkl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(content))
    return folder


def votes(folder, counts):
    """`final_result.csv`: counts of (label, text, audio, image) -> cuts, dealt out over films of ten cuts."""
    rows = []
    for (label, text, audio, image), count in counts.items():
        for _ in range(count):
            k = len(rows)
            name = f"film{k // 10}_{k}.0-{k}.5_{label}.mp4"
            rows.append([name, label, "said", text, audio, image])
    write_csv(folder / "final_result.csv", VOTES, rows)
    return folder


def rows_of(file):
    """The rows of a CSV as dicts."""
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))
