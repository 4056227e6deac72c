"""WebDataset tars are read in place; damaged ones are refused or listed."""

from pathlib import Path

import pytest

from cluster.errors import ConfigError, LabelTableError, NotPreparedError
from cluster.settings import from_mapping
from jobs.datasets.webdataset import MOST_BYTES, Config
from tests.jobs.datasets.official_layouts import tarred, webdataset
from tests.jobs.preparing.clip_rows import checked

MOOD = {"tasks": {"mood": "classification"}}


def collected(folder, **options):
    given = {"root": "r", "source": str(folder), **MOOD, **options}
    return from_mapping(Config, given).collect()


def test_a_clip_is_a_key_and_its_sound_lies_where_the_row_says(tmp_path):
    webdataset(tmp_path)
    rows = checked(collected(tmp_path))
    assert [(row.name, row.split, row.text, row.speaker) for row in rows] == [
        ("a", "train", "said a", "sa"),
        ("b", "train", "said b", "sb"),
        ("c", "valid", "said c", "sc"),
    ]
    place = rows[1].audio
    raw = Path(place.uri).read_bytes()[place.offset : place.offset + place.size]
    assert raw == b"RIFF" + b"b" * 20
    assert rows[1].video is None


def test_a_number_of_a_class_file_counts_the_classes_that_are_given(tmp_path):
    tarred(tmp_path / "x.tar", {"a.mp4": b"m", "a.cls": b"1", "b.mp4": b"n", "b.cls": b"low"})
    rows = checked(collected(tmp_path, classes={"mood": "low,high"}))
    assert [row.labels["mood"] for row in rows] == ["high", "low"]
    assert rows[0].video == rows[0].audio


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"a.wav": b"m", "a.json": b"{"}, "a.json: not JSON"),
        ({"a.wav": b"m", "a.json": [1]}, "an object of keys"),
        ({"a.wav": b"m", "a.json": b"[" * 100_000}, "a.json: not JSON"),
        ({"a.wav": b"m", "a.txt": b"x" * (MOST_BYTES + 1)}, "1,048,577 bytes"),
        ({"a.wav": b"m", "a.cls": b"7"}, "mood '7' is not a classification label"),
        ({"a.wav": b"m", "a.json": {"mood": "lou"}}, "'lou' is not among its classes"),
        ({"a.wav": b"m", "a.json": {"mood": ["low"]}}, "is not a classification label"),
        ({"a.wav": b"m", "a.json": {"split": "holdout"}}, "holdout"),
    ],
    ids=["half", "list", "deep", "large", "number", "unknown label", "nested", "unknown split"],
)
def test_a_damaged_member_is_a_fault(members, said, tmp_path):
    tarred(tmp_path / "x.tar", {**members, "b.wav": b"n"})
    with pytest.raises(LabelTableError) as caught:
        checked(collected(tmp_path, classes={"mood": "low,high"}))
    assert said in str(caught.value)


def test_a_key_in_two_tars_is_a_fault(tmp_path):
    for name in ("x", "y"):
        tarred(tmp_path / f"{name}.tar", {"a.wav": b"m"})
    with pytest.raises(LabelTableError, match="stands twice"):
        checked(collected(tmp_path))


def test_names_that_climb_out_of_the_tar_write_nothing(tmp_path):
    folder = tmp_path / "shards"
    tarred(folder / "x.tar", {"../../evil.wav": b"m", "/abs.wav": b"n"})
    before = sorted(tmp_path.rglob("*"))
    rows = checked(collected(folder))
    assert {row.audio.uri for row in rows} == {str(folder / "x.tar")}
    assert sorted(tmp_path.rglob("*")) == before


def test_a_link_to_nothing_is_named(tmp_path):
    (tmp_path / "x.tar").symlink_to(tmp_path / "gone.tar")
    with pytest.raises(NotPreparedError, match=r"x\.tar: a link to nothing"):
        collected(tmp_path)


@pytest.mark.parametrize("content", [b"no tar at all" * 99, b"\x1f\x8b\x08" + b"0" * 999])
def test_what_is_no_plain_tar_is_named(content, tmp_path):
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(NotPreparedError, match=r"x\.tar: not an uncompressed tar"):
        collected(tmp_path)


@pytest.mark.parametrize("cut", [300, 700, 1536, 2600, 3072, 4608])
def test_a_tar_that_is_cut_off_is_never_read_as_whole(cut, tmp_path):
    members = {f"{key}.wav": key.encode() * 600 for key in "abc"}
    tarred(tmp_path / "x.tar", members)
    content = (tmp_path / "x.tar").read_bytes()
    (tmp_path / "x.tar").write_bytes(content[:cut])
    with pytest.raises((NotPreparedError, LabelTableError), match=r"x\.tar"):
        checked(collected(tmp_path))


@pytest.mark.parametrize(
    "options",
    [{"tasks": {"mood": "classes"}}, {"columns": {"speeker": "who"}}, {"ranges": {"mood": "3"}}],
)
def test_options_are_checked_before_anything_is_read(options, tmp_path):
    with pytest.raises(ConfigError):
        collected(tmp_path, **options)
