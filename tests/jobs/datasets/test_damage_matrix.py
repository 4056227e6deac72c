"""Six kinds of damage to a small copy of every dataset: each is refused, listed, or changes no other clip."""

import os
import pickle
import shutil
from collections import Counter
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pytest

from cluster.errors import AffuseError, LabelTableError
from tests.jobs.datasets.official_layouts import LAYOUTS, hub_table, saved_to_disk, tarred
from tests.jobs.datasets.test_conformance import ADAPTERS, config_of
from tests.jobs.preparing.clip_rows import checked

TABLES = {
    "avamerg": "train.json",
    "emobox": "data/emodb/fold_1/emodb_train_fold_1.jsonl",
    "empathic_reactions": "empathic_reactions_messages.csv",
    "folder": "labels.csv",
    "iemocap": "Session2/dialog/EmoEvaluation/Ses02F_impro01.txt",
    "meld": "train_sent_emo.csv",
    "mosi": "label.csv",
    "video_sentiment": "final_result.csv",
}
"""Adapter -> its table of labels in the small copy."""

PICKLES = {
    "influencer_empathy": "empathy_test_data.pkl",
    "mmsa": "aligned_50.pkl",
    "mosei": "Processed/aligned_50.pkl",
    "sims": "Processed/unaligned_39.pkl",
}
TWINS_OF_FILES = {
    "cremad": ("AudioWAV/1001_DFA_ANG_XX.wav", "more/1001_DFA_ANG_XX.wav"),
    "emodb": ("wav/03a01Fa.wav", "more/03a01Fa.wav"),
    "ravdess": ("Actor_01/03-01-03-01-01-01-02.wav", "more/03-01-03-01-01-01-02.wav"),
}
"""Adapter whose labels are in the names of its files -> a file, and a second place for it."""

UNKNOWN_NAMES = {
    "cremad": "AudioWAV/1003_DFA_XYZ_XX.wav",
    "emodb": "wav/03a01Xa.wav",
    "ravdess": "Actor_01/03-01-99-01-01-01-01.wav",
}
UNKNOWN_LABELS = {
    "avamerg": ("anxious", "purple"), "emobox": ("anger", "purple"), "empathic_reactions": ("5.667", "much"),
    "folder": ("low", "purple"), "iemocap": ("exc", "purple"), "meld": ("surprise", "purple"),
    "mosi": ("-1.5", "-9.5"), "video_sentiment": ('mp4","0"', 'mp4","7"'),
}  # fmt: skip
"""Adapter -> a label of its table, and what stands in its place."""


class Copy:
    """A small copy of a dataset, which is damaged before it is read."""

    def __init__(self, name, folder):
        self.name, self.folder = name, folder
        folder.mkdir()
        self.options = LAYOUTS[name](folder) or {}
        if name == "folder":
            table = "name,text,mood\na,sö,low\nb,nö,high\nc,,low\n"
            (folder / "labels.csv").write_text(table, encoding="utf-8")
            self.options |= {"labels": str(folder / "labels.csv")}
            self.options |= {"tasks": {"mood": "classification"}, "classes": {"mood": "low,high"}}
        if name == "webdataset":
            self.options |= {"classes": {"mood": "low,high"}}

    @property
    def table(self):
        return self.folder / TABLES[self.name]

    def rows(self):
        """Name -> what is read of a clip, without where its files lie."""
        elsewhere = self.folder.parent / "elsewhere"
        shutil.rmtree(elsewhere, ignore_errors=True)
        elsewhere.mkdir()
        config = config_of(self.name, elsewhere, **{"source": str(self.folder), **self.options})
        collected = config.collect()
        if collected.faults:
            raise LabelTableError("; ".join(map(str, collected.faults)))
        return {row.name: (row.text, dict(row.labels), row.speaker) for row in checked(collected)}


class Runs:
    def __reduce__(self):
        return (os.system, ("true",))


def lines_of(copy):
    return copy.table.read_bytes().splitlines(keepends=True)


def missing_file(copy):
    """Whichever file is gone, the other clips stay what they are."""
    before, outcomes = copy.rows(), Counter()
    for file in sorted(path for path in copy.folder.rglob("*") if path.is_file()):
        content = file.read_bytes()
        file.unlink()
        try:
            now = copy.rows()
        except AffuseError:
            outcomes["refused"] += 1
        else:
            assert set(now) <= set(before)
            assert all(before[name][1] == said[1] for name, said in now.items())
            outcomes["read"] += 1
        file.write_bytes(content)
    assert outcomes


def shifted_rows(copy):
    """Rows are joined by keys: in another order they are the same clips; what is not whole is refused."""
    before = copy.rows()
    if copy.name in PICKLES:
        file = copy.folder / PICKLES[copy.name]
        content = pickle.loads(file.read_bytes())
        key = "labels" if "labels" in content["test"] else "regression_labels"
        content["test"][key] = np.append(content["test"][key], 0.0)
        file.write_bytes(pickle.dumps(content))
    elif copy.name == "arrays":
        np.savez(copy.folder / "toy.npz", name=["a", "b", "c"], mood=["low", "high"])
    elif copy.name == "video_sentiment":
        moved = copy.table.read_bytes().replace(b'_0.mp4","0"', b'_0.mp4","1"')
        copy.table.write_bytes(moved)
    else:
        head, *rest = lines_of(copy)
        rest = [line if line.endswith(b"\n") else line + b"\n" for line in rest]
        copy.table.write_bytes(b"".join([head, *reversed(rest)]))
        assert copy.rows() == before
        return
    with pytest.raises(AffuseError):
        copy.rows()


def twin_key(copy):
    """A key that stands twice is a fault, never the first or the last of the two."""
    if copy.name in TWINS_OF_FILES:
        first, second = (copy.folder / file for file in TWINS_OF_FILES[copy.name])
        if not first.exists():
            first = next(copy.folder.rglob(first.name))
        second.parent.mkdir()
        first.write_bytes(b"one")
        second.write_bytes(b"another")
    elif copy.name in PICKLES:
        file = copy.folder / PICKLES[copy.name]
        content = pickle.loads(file.read_bytes())
        content["train"]["id"] = [content["train"]["id"][0]] * 2
        file.write_bytes(pickle.dumps(content))
    elif copy.name == "arrays":
        np.savez(copy.folder / "toy.npz", name=["a", "a", "c"], mood=["low", "high", "low"])
    elif copy.name == "huggingface":
        saved_to_disk(
            copy.folder / "train",
            hub_table("ab").append_column("name", pa.array(["x", "x"])),
            "train",
        )
    elif copy.name == "webdataset":
        tarred(copy.folder / "train-000001.tar", {"a.wav": b"RIFF" * 20, "a.json": {"mood": "low"}})
    elif copy.name == "avamerg":
        text = copy.table.read_text().strip()
        copy.table.write_text(f"[{text[1:-1]}, {text[1:-1]}]")
    else:
        lines = lines_of(copy)
        copy.table.write_bytes(
            b"".join([*lines, b"\n" if not lines[-1].endswith(b"\n") else b"", lines[-1]])
        )
    with pytest.raises(AffuseError):
        copy.rows()


def unknown_label(copy):
    """A label that the task does not have is a fault, never another class."""
    if copy.name in UNKNOWN_NAMES:
        file = copy.folder / UNKNOWN_NAMES[copy.name]
        file.parent.mkdir(exist_ok=True)
        file.touch()
    elif copy.name in PICKLES:
        file = copy.folder / PICKLES[copy.name]
        content = pickle.loads(file.read_bytes())
        key = "labels" if "labels" in content["test"] else "regression_labels"
        content["test"][key] = ["much"] * len(content["test"][key])
        file.write_bytes(pickle.dumps(content))
    elif copy.name == "arrays":
        np.savez(copy.folder / "toy.npz", name=["a", "b", "c"], mood=["low", "purple", "low"])
        copy.options["classes"] = {"mood": "low,high"}
    elif copy.name == "huggingface":
        saved_to_disk(copy.folder / "train", hub_table("abc", moods=[0, 7, 1]), "train")
    elif copy.name == "webdataset":
        members = {"d.wav": b"RIFFd" * 20, "d.json": {"mood": "purple"}}
        tarred(copy.folder / "train-000001.tar", members)
    else:
        old, new = (text.encode() for text in UNKNOWN_LABELS[copy.name])
        raws = {file: file.read_bytes() for file in copy.table.parent.iterdir() if file.is_file()}
        assert any(old in raw for raw in raws.values())
        for file, raw in raws.items():
            file.write_bytes(raw.replace(old, new))
    with pytest.raises(AffuseError):
        copy.rows()


def foreign_encoding(copy):
    """A table that was saved anew in another encoding is the same, or is refused; no letter is lost."""
    before, raw = copy.rows(), copy.table.read_bytes()
    text = raw.decode("cp1252" if copy.name == "meld" else "utf-8")
    for encoding in ("utf-8-sig", "utf-16", "cp1252"):
        copy.table.write_bytes(text.encode(encoding))
        with suppress(AffuseError):
            assert copy.rows() == before


def forbidden_pickle(copy):
    """Nothing that a file names is run."""
    if copy.name == "arrays":
        np.savez(copy.folder / "toy.npz", name=np.array([Runs()] * 3, object), mood=["low"] * 3)
    else:
        file = copy.folder / PICKLES[copy.name]
        content = pickle.loads(file.read_bytes())
        file.write_bytes(pickle.dumps({**content, "more": Runs()}))
    with pytest.raises(AffuseError, match=r"system|pickle|objects of Python"):
        copy.rows()


DAMAGES = (
    missing_file, shifted_rows, twin_key, unknown_label, foreign_encoding, forbidden_pickle,
)  # fmt: skip
BY_NAME = set(TWINS_OF_FILES)
SELF_CONTAINED = {"huggingface", "webdataset"}
NOT_APPLICABLE = {
    shifted_rows: BY_NAME | SELF_CONTAINED,  # a clip and its label are one file or one record
    twin_key: {"influencer_empathy"},  # its rows have no key
    foreign_encoding: BY_NAME | SELF_CONTAINED | {"arrays", *PICKLES},  # no table of text
    forbidden_pickle: set(ADAPTERS) - set(PICKLES) - {"arrays"},  # nothing is unpickled
}
CELLS = [
    (damage, name)
    for damage in DAMAGES
    for name in ADAPTERS
    if name not in NOT_APPLICABLE.get(damage, ())
]


def test_every_kind_of_damage_is_tried_wherever_it_can_happen():
    assert len(ADAPTERS) * len(DAMAGES) == 108
    assert len(CELLS) == 79
    assert {name for _, name in CELLS} == set(ADAPTERS)


@pytest.mark.parametrize(
    ("damage", "name"), [pytest.param(d, n, id=f"{d.__name__}-{n}") for d, n in CELLS]
)
def test_damage_is_refused_or_touches_nothing_else(damage, name, tmp_path):
    damage(Copy(name, tmp_path / "source"))
