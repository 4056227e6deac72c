"""A small prepared dataset with features, written table by table: for the tests of train and tune."""

import numpy as np
import pyarrow as pa

from cluster import storage, tables

CLASSES = ("calm", "glad", "sad")
DIMS = {"voice": 6, "face": 4}
SPEAKERS, CLIPS = 9, 8


def write_root(
    root: str,
    *,
    noise_on_test: int | None = None,
    dialogues: bool = False,
    noise_on_last_turns: bool = False,
    splits: str | None = None,
    votes: bool = False,
) -> str:
    """Nine speakers of eight clips each; the last three speakers are the test split.

    Args:
        root: folder to write.
        noise_on_test: seed; labels and features of the test rows are replaced by noise.
        dialogues: the clips of a speaker are one dialogue.
        noise_on_last_turns: the features of the last turn of every dialogue are noise.
        splits: the split of every clip.
        votes: of every clip but each ninth three raters' votes are known, two for its class.
    """
    count = SPEAKERS * CLIPS
    draws = np.random.default_rng(0)
    target = draws.integers(3, size=count)
    value = target + 0.1 * draws.standard_normal(count)
    features = {
        name: [
            draws.standard_normal((3, dim))[:1].repeat(steps, 0) * 0.3
            + 2 * np.eye(3, dim)[target[clip]]
            + 0.3 * draws.standard_normal((steps, dim))
            for clip, steps in enumerate(draws.integers(1, 6, size=count))
        ]
        for name, dim in DIMS.items()
    }
    speaker = np.arange(count) // CLIPS
    split = np.where(speaker < 6, "train", "test").astype(object)
    split[speaker == 5] = "valid"
    if noise_on_test is not None:
        noise = np.random.default_rng(noise_on_test)
        for clip in np.flatnonzero(split == "test"):
            target[clip], value[clip] = noise.integers(3), noise.standard_normal()
            for values in features.values():
                values[clip] = noise.standard_normal(values[clip].shape) * 50
    if splits is not None:
        split[:] = splits
    if noise_on_last_turns:
        noise = np.random.default_rng(1)
        for clip in range(0, count, CLIPS):
            for values in features.values():
                values[clip] = noise.standard_normal(values[clip].shape) * 50
    _manifest(root, target, value, speaker, split, dialogues=dialogues, votes=votes)
    for name, values in features.items():
        _features(root, name, values, missing={3} if name == "face" else set())
    fold = tables.FOLDS.conform(
        pa.table({"clip_id": np.arange(count) + 100, "fold": (speaker % 3).astype(np.int64)})
    )
    storage.publish_table(fold, f"{root}/folds/speaker.parquet")
    return root


def write_views(root: str, name: str, count: int, *, noise_from: int | None = None) -> None:
    """Views of an input: its values plus a tenth of the view's number.

    Args:
        root: what `write_root` wrote.
        name: voice or face.
        count: how many views.
        noise_from: clips from this id on are noise in every view.
    """
    table = storage.read_table(f"{root}/features/{name}-1/rows.parquet")
    facts = storage.read_json(f"{root}/features/{name}-1/descriptor.json")
    draws = np.random.default_rng(count)
    for number in range(1, count + 1):
        kept = []
        for clip, rows in zip(
            table["clip_id"].to_pylist(), table["values"].to_pylist(), strict=True
        ):
            values = np.array(rows, np.float16).reshape(len(rows), DIMS[name]) + number / 10
            if noise_from is not None and clip >= noise_from:
                values = 50 * draws.standard_normal(values.shape)
            kept.append(values.astype(np.float16).tolist())
        column = pa.array(kept, pa.list_(pa.list_(pa.float16(), DIMS[name])))
        other = table.set_column(table.column_names.index("values"), "values", column)
        folder = f"{root}/features/{name}-1v{number}"
        storage.publish_table(other, f"{folder}/rows.parquet")
        view = {"view": {"number": number, "of": f"{name}-1"}}
        storage.publish_json(facts | view, f"{folder}/descriptor.json")


def _manifest(root, target, value, speaker, split, *, dialogues, votes):
    count = len(target)
    columns = {name: pa.nulls(count, kind) for name, kind in _fields()}
    columns["clip_id"] = pa.array(np.arange(count) + 100)
    columns["name"] = pa.array([f"clip{i}" for i in range(count)])
    columns["unit"] = pa.array([f"unit{s}" for s in speaker])
    columns["group"] = columns["speaker"] = pa.array([f"s{s}" for s in speaker])
    columns["split"] = pa.array(list(split))
    if dialogues:
        columns["dialogue"] = pa.array([f"d{s}" for s in speaker])
        # Stored out of order: the feed has to sort them.
        columns["turn"] = pa.array([CLIPS - 1 - i % CLIPS for i in range(count)])
    labels = [CLASSES[code] for code in target]
    labels[7] = None
    columns["emotion"] = pa.array(labels, pa.string())
    columns["arousal"] = pa.array(value)
    if votes:
        choices = [np.eye(3)[[code, code, (code + 1) % 3]].tolist() for code in target]
        choices[::9] = [None] * len(choices[::9])
        columns["votes"] = pa.StructArray.from_arrays(
            [pa.array(choices, pa.list_(pa.list_(pa.float64())))], ["emotion"]
        )
    table = tables.MANIFEST.conform(pa.table(columns))
    for each in range(SPEAKERS):
        part = table.filter(pa.array(speaker == each))
        storage.publish_table(part, f"{root}/manifest/abc/part-{each}.parquet")
    tasks = {
        "emotion": {"kind": "classification", "classes": list(CLASSES)},
        "arousal": {"kind": "regression"},
    }
    facts = {"name": "small", "licence": "none", "manifest": "abc", "tasks": tasks}
    if votes:
        facts["votes"] = ["emotion"]
    storage.publish_json(facts, f"{root}/dataset.json")


def _fields():
    return [(field.name, field.type) for field in tables.MANIFEST.schema]


def _features(root, name, values, missing):
    dim = DIMS[name]
    steps = [0 if clip in missing else len(rows) for clip, rows in enumerate(values)]
    kept = [
        rows.astype(np.float16).tolist() if steps[clip] else [] for clip, rows in enumerate(values)
    ]
    times = pa.array([[0.0] * n for n in steps], pa.list_(pa.float32()))
    table = pa.table(
        {
            "clip_id": np.arange(len(values)) + 100,
            "values": pa.array(kept, pa.list_(pa.list_(pa.float16(), dim))),
            "step_start_s": times,
            "step_end_s": times,
            "valid": pa.array([[True] * n for n in steps], pa.list_(pa.bool_())),
            "status": ["ok" if n else "missing" for n in steps],
            "error": pa.nulls(len(values), pa.string()),
        }
    )
    folder = f"{root}/features/{name}-1"
    storage.publish_table(tables.features(dim).conform(table), f"{folder}/rows.parquet")
    facts = {"name": name, "modality": {"voice": "audio", "face": "video"}[name], "dim": dim}
    storage.publish_json({**facts, "options": {}, "manifest": "abc"}, f"{folder}/descriptor.json")
