"""The published files give as many clips as their papers say; damaged copies of them are refused."""

import os
from collections import Counter
from pathlib import Path

import pytest

from cluster.errors import LabelTableError
from tests.jobs.datasets.official_layouts import LAYOUTS
from tests.jobs.datasets.test_conformance import config_of
from tests.jobs.preparing.clip_rows import checked

DATA = Path(os.environ.get("AFFUSE_DATA", Path(__file__).resolve().parents[4] / "shared" / "data"))


def published(folder):
    if not (DATA / folder).is_dir():
        pytest.skip(f"AFFUSE_DATA holds no {folder} folder")
    return str(DATA / folder)


def test_ravdess_has_1440_clips_of_24_actors(tmp_path):
    rows = checked(config_of("ravdess", tmp_path, source=published("ravdess")).collect())
    assert len(rows) == 1440
    assert set(Counter(row.speaker for row in rows).values()) == {60}


def test_mosi_has_2199_utterances_in_93_videos(tmp_path):
    rows = checked(config_of("mosi", tmp_path, source=published("mosi")).collect())
    assert (len(rows), len({row.group for row in rows})) == (2199, 93)


@pytest.mark.parametrize(("corpus", "clips"), [("mmmo", 340), ("pom", 903), ("youtube", 269)])
def test_word_level_corpora_are_read_from_their_arrays(corpus, clips, tmp_path):
    options = {"tasks": {"mood": "regression"}, "labels": {"mood": "y_{split}:0"}}
    source = f"{published('wordlevel')}/{corpus}.npz"
    if corpus == "mmmo":
        options["labels"] = {"mood": "y_{split}"}
    assert len(checked(config_of("arrays", tmp_path, source=source, **options).collect())) == clips


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_essays_are_read_in_any_encoding(encoding, tmp_path):
    config = config_of("empathic_reactions", tmp_path)
    table = tmp_path / "empathic_reactions_messages.csv"
    table.write_bytes(table.read_text(encoding="utf-8").encode(encoding))
    assert checked(config.collect())[1].text == "über “alles”"


def test_an_essay_that_stands_twice_and_a_row_that_has_shifted_are_faults(tmp_path):
    LAYOUTS["empathic_reactions"](tmp_path)
    config = config_of("empathic_reactions", tmp_path)
    table = tmp_path / "empathic_reactions_messages.csv"
    lines = table.read_text(encoding="utf-8").splitlines()
    for damaged, said in (
        (lines[1], "stands twice"),
        (lines[1].split(",", 1)[1], "row|cells|column"),
    ):
        table.write_text("\n".join([*lines, damaged]) + "\n", encoding="utf-8")
        with pytest.raises(LabelTableError, match=said):
            checked(config.collect())
