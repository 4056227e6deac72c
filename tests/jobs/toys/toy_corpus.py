"""A prepared dataset of short sounds, written without the prepare job; also the toys' command line."""

import sys
import wave
from pathlib import Path

import numpy as np
import pyarrow as pa

from cluster import storage, tables
from encoders import ENCODERS, TRANSCRIBERS

UNIT = 4  # clips a unit


def register():
    ENCODERS.update({"toy_audio": "toy_audio", "toy_text": "toy_text"})
    TRANSCRIBERS.update({"toy_ear": "toy_ear"})


def write_corpus(
    root, count, *, texts=None, name="toy", unit_size=UNIT, seconds=0.5, test=(), costs=None
):
    """`count` sounds of rising loudness, `unit_size` a unit; earlier units stay as they are.

    `test`: ids of the test split. `costs`: of each clip, in place of its length.
    """
    root = Path(root)
    media = root / "media"
    media.mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(count):
        path = media / f"{i}.wav"
        if not path.exists():
            _write_sound(path, 0.1 + 0.8 * (i % 10) / 10, seconds)
        text = f"clip number {i}" if texts is None else texts[i]
        rows.append(_row(i, str(path), text, f"u{i // unit_size:05d}n{unit_size}", seconds))
        rows[-1]["split"] = "test" if i in test else None
        rows[-1]["cost"] = seconds if costs is None else costs[i]
    table = tables.MANIFEST.conform(pa.Table.from_pylist(rows, tables.MANIFEST.schema))
    digest = f"hash{count}"
    storage.publish_table(
        table,
        str(root / "manifest" / digest / "part-00000.parquet"),
        row_group_size=unit_size,
    )
    facts = {"name": name, "licence": "Apache-2.0", "manifest": digest, "tasks": {}, "profile": []}
    storage.publish_json(facts | {"source": "made up"}, str(root / "dataset.json"))
    return root


def _row(i, uri, text, unit, seconds):
    source = {"uri": uri, "offset": None, "size": None}
    return {
        "clip_id": i,
        "name": f"c{i}",
        "unit": unit,
        "video": None,
        "audio": source,
        "text": text,
        "duration_s": seconds,
        "group": str(i % 3),
    }


def _write_sound(path, loudness, seconds):
    samples = loudness * np.sin(np.arange(int(8000 * seconds)) * 0.3)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes((samples * 32767).astype("<i2").tobytes())


if __name__ == "__main__":
    from jobs.__main__ import main

    register()
    main(sys.argv[1:])
