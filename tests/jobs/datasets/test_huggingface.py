"""Hugging Face datasets, written as `datasets` writes them: media in place or unpacked, damage refused."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.errors import AffuseError, ConfigError, LabelTableError, NotPreparedError
from cluster.settings import from_mapping
from jobs.datasets.huggingface import Config
from tests.jobs.datasets.official_layouts import (
    hub_features,
    hub_table,
    huggingface,
    saved_to_disk,
)
from tests.jobs.preparing.clip_rows import checked

IN_PLACE = {"compression": "NONE", "use_dictionary": False}


def collected(folder, **options):
    given = {"root": str(folder.parent / "root"), "source": str(folder), **options}
    return from_mapping(Config, given).collect()


def content_of(place):
    raw = Path(place.uri).read_bytes()
    return raw[place.offset : place.offset + place.size]


def facts(rows):
    return [(row.name, row.split, row.text, row.speaker, row.labels["mood"]) for row in rows]


EXPECTED = [
    ("a.wav", "train", "said a", "sa", "low"),
    ("b.wav", "train", "said b", "sb", "high"),
    ("c.wav", "train", "said c", "sc", "low"),
    ("d.wav", "valid", "said d", "sd", "low"),
]


def parquet(folder, **options):
    folder.mkdir(exist_ok=True)
    pq.write_table(hub_table("abc"), folder / "train-00000-of-00001.parquet", **options)
    pq.write_table(hub_table("d"), folder / "validation-00000-of-00001.parquet", **options)


@pytest.fixture(params=["saved", "parquet", "compressed", "row groups"])
def source(request, tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    options = {
        "saved": None,
        "parquet": IN_PLACE,
        "compressed": {"compression": "snappy"},
        "row groups": {"compression": "zstd", "row_group_size": 1},
    }[request.param]
    if options is None:
        huggingface(folder)
    else:
        parquet(folder, **options)
    return folder


def test_rows_splits_and_class_names_are_those_of_the_dataset_however_it_is_stored(source):
    data = collected(source)
    rows = checked(data)
    assert facts(rows) == EXPECTED
    assert data.tasks["mood"].classes == ("low", "high")
    for row in rows:
        assert content_of(row.audio) == b"RIFF" + row.name[0].encode() * 20
        assert row.video is None


def test_bytes_that_lie_there_as_such_are_not_copied(tmp_path):
    (tmp_path / "saved").mkdir()
    huggingface(tmp_path / "saved")
    parquet(tmp_path / "plain", **IN_PLACE)
    for folder in (tmp_path / "saved", tmp_path / "plain"):
        for row in checked(collected(folder)):
            assert row.audio.uri.startswith(str(folder))
    assert not (tmp_path / "root").exists()


def test_compressed_bytes_are_unpacked_once_a_file(tmp_path):
    parquet(tmp_path / "hub", compression="snappy")
    first = checked(collected(tmp_path / "hub"))
    shards = sorted((tmp_path / "root").rglob("*.tar"))
    times = [shard.stat().st_mtime_ns for shard in shards]
    assert checked(collected(tmp_path / "hub")) == first
    assert len(shards) == 2
    assert [shard.stat().st_mtime_ns for shard in shards] == times


@pytest.mark.parametrize("compression", [None, "lz4"])
def test_rows_without_a_sound_have_none_and_others_keep_theirs(compression, tmp_path):
    table = hub_table("abcd")
    cells = table["audio"].to_pylist()
    cells[0] = None
    cells[2] = {"bytes": None, "path": None}
    cells[3]["bytes"] = b""
    table = table.set_column(0, "audio", pa.array(cells, table["audio"].type))
    saved_to_disk(tmp_path / "hub", table, None)
    if compression:
        name = next((tmp_path / "hub").glob("*.arrow"))
        options = pa.ipc.IpcWriteOptions(compression=compression)
        with pa.OSFile(str(name), "wb") as file:
            with pa.ipc.new_stream(file, table.schema, options=options) as out:
                out.write_table(table)
    rows = checked(collected(tmp_path / "hub"))
    assert [row.name for row in rows] == [f"row-000000{k}" for k in range(4)]
    assert rows[0].audio is None
    assert rows[2].audio is None
    assert content_of(rows[1].audio) == b"RIFF" + b"b" * 20
    assert rows[3].audio.size == 0


def test_a_film_gives_its_sound_where_the_row_has_no_other(tmp_path):
    features = hub_features()
    features["clip"] = {"_type": "Video"}
    table = hub_table("ab", features=features)
    films = [{"bytes": name.encode() * 9, "path": f"{name}.mp4"} for name in "ab"]
    table = table.append_column("clip", pa.array(films, table["audio"].type))
    cells = table["audio"].to_pylist()
    table = table.set_column(0, "audio", pa.array([cells[0], None], table["audio"].type))
    saved_to_disk(tmp_path / "hub", table, None, features=features)
    one, other = checked(collected(tmp_path / "hub"))
    assert content_of(one.video) == b"a" * 9
    assert content_of(one.audio) == b"RIFF" + b"a" * 20
    assert other.video == other.audio


def test_lists_of_class_labels_are_several_labels(tmp_path):
    kind = {"feature": {"names": ["joy", "fear"], "_type": "ClassLabel"}, "_type": "Sequence"}
    table = hub_table("abc").append_column(
        "felt", pa.array([[0, 1], [], None], pa.list_(pa.int64()))
    )
    features = {**hub_features(), "felt": kind}
    saved_to_disk(tmp_path / "hub", table, None, features=features)
    data = collected(tmp_path / "hub")
    assert data.tasks["felt"].kind == "multilabel"
    assert [row.labels["felt"] for row in checked(data)] == [
        [1.0, 1.0],
        [0.0, 0.0],
        None,
    ]


def test_columns_go_by_other_names_and_numbers_are_read_as_numbers(tmp_path):
    table = hub_table("abc").rename_columns(["speech", "mood", "sentence", "actor"])
    table = table.append_column("score", pa.array([0.5, None, 2.0])).replace_schema_metadata(None)
    pq.write_table(table, tmp_path / "x.parquet")
    data = collected(
        tmp_path,
        root=str(tmp_path.parent / "elsewhere"),
        columns={"audio": "speech", "text": "sentence", "speaker": "actor"},
        tasks={"mood": "classification", "score": "regression"},
        classes={"mood": "0,1"},
    )
    rows = checked(data)
    assert [row.labels for row in rows] == [
        {"mood": "0", "score": 0.5},
        {"mood": "1", "score": None},
        {"mood": "0", "score": 2.0},
    ]
    assert [row.text for row in rows] == ["said a", "said b", "said c"]


def test_words_alone_are_clips(tmp_path):
    saved_to_disk(tmp_path / "hub", hub_table("abc").drop_columns("audio"), "test")
    rows = checked(collected(tmp_path / "hub"))
    assert [(row.name, row.split, row.audio) for row in rows] == [
        (f"test-000000{k}", "test", None) for k in range(3)
    ]


class TestDamage:
    def test_an_unknown_label_is_named_and_no_label_is_none(self, tmp_path):
        saved_to_disk(tmp_path / "hub", hub_table("abc", moods=[0, 7, -1]), None)
        with pytest.raises(LabelTableError, match=r"b\.wav: mood '7' is not among its classes"):
            checked(collected(tmp_path / "hub"))

    def test_a_twin_key_is_a_fault(self, tmp_path):
        table = hub_table("ab").append_column("name", pa.array(["x", "x"]))
        saved_to_disk(tmp_path / "hub", table, None)
        with pytest.raises(LabelTableError, match="stands twice"):
            checked(collected(tmp_path / "hub"))

    @pytest.mark.parametrize("name", ["speaker", " mood", " audio "])
    def test_two_columns_of_one_name_are_a_fault(self, name, tmp_path):
        table = hub_table("ab")
        twin = table.append_column(name, pa.array(["x", "y"]))
        saved_to_disk(tmp_path / "hub", twin, None)
        with pytest.raises(LabelTableError, match=f"2 columns are called '{name.strip()}'"):
            collected(tmp_path / "hub")

    @pytest.mark.parametrize("suffix", ["arrow", "parquet"])
    def test_decoded_samples_are_no_file(self, suffix, tmp_path):
        samples = [{"array": [0.1], "path": "a.wav", "sampling_rate": 8000}] * 2
        table = pa.table({"audio": samples, "text": ["a", "b"]})
        if suffix == "arrow":
            saved_to_disk(tmp_path / "hub", table, None)
        else:
            (tmp_path / "hub").mkdir()
            pq.write_table(table, tmp_path / "hub" / "train.parquet")
        with pytest.raises(LabelTableError, match="audio: each cell is an object"):
            checked(collected(tmp_path / "hub"))

    def test_bytes_that_nothing_calls_media_are_not_read_beside_media(self, tmp_path):
        table = hub_table("ab").append_column("hash", pa.array([b"x", b"y"]))
        saved_to_disk(tmp_path / "hub", table, None)
        rows = checked(collected(tmp_path / "hub"))
        assert all(row.video is None for row in rows)

    def test_one_person_in_two_splits_is_a_fault(self, tmp_path):
        table = hub_table("ab").set_column(3, "speaker", pa.array(["s", "s"]))
        saved_to_disk(tmp_path / "hub" / "train", table.slice(0, 1), "train")
        saved_to_disk(tmp_path / "hub" / "test", table.slice(1), "test")
        with pytest.raises(LabelTableError, match="more than one split"):
            checked(collected(tmp_path / "hub"))

    @pytest.mark.parametrize("name", ["data-00000-of-00001.arrow", "../../etc/passwd", "/abs", 7])
    def test_a_file_that_is_named_and_not_beside_is_refused(self, name, tmp_path):
        saved_to_disk(tmp_path / "hub", hub_table("ab"), None)
        (tmp_path / "hub" / "data-00000-of-00001.arrow").unlink()
        state = {"_data_files": [{"filename": name}]}
        (tmp_path / "hub" / "state.json").write_text(json.dumps(state))
        with pytest.raises(AffuseError, match=r"state\.json.*beside it"):
            collected(tmp_path / "hub")

    @pytest.mark.parametrize("content", ["{", "[]", "{}", "[" * 100_000, '{"_data_files": 3}'])
    def test_a_damaged_description_is_refused(self, content, tmp_path):
        saved_to_disk(tmp_path / "hub", hub_table("ab"), None)
        (tmp_path / "hub" / "state.json").write_text(content)
        with pytest.raises(LabelTableError, match=r"state\.json"):
            collected(tmp_path / "hub")

    def test_rows_that_are_picked_by_indices_are_refused(self, tmp_path):
        saved_to_disk(tmp_path / "hub", hub_table("ab"), None)
        state = json.loads((tmp_path / "hub" / "state.json").read_text())
        state["_indices_data_files"] = [{"filename": "indices.arrow"}]
        (tmp_path / "hub" / "state.json").write_text(json.dumps(state))
        with pytest.raises(LabelTableError, match="flatten_indices"):
            collected(tmp_path / "hub")

    def test_files_with_other_columns_or_classes_are_refused(self, tmp_path):
        saved_to_disk(tmp_path / "hub" / "train", hub_table("ab"), "train")
        other = hub_table("c")
        saved_to_disk(tmp_path / "hub" / "test", other.drop_columns("text"), "test")
        with pytest.raises(LabelTableError, match="all files of a dataset have the same"):
            collected(tmp_path / "hub")
        turned = hub_features(("high", "low"))
        saved_to_disk(tmp_path / "hub" / "test", other, "test", features=turned)
        with pytest.raises(LabelTableError, match=r"has the classes.*low.*high"):
            collected(tmp_path / "hub")

    @pytest.mark.parametrize("cut", [0, 3, 700, 1500])
    @pytest.mark.parametrize("suffix", ["arrow", "parquet"])
    def test_a_file_that_is_cut_off_is_named(self, cut, suffix, tmp_path):
        if suffix == "arrow":
            saved_to_disk(tmp_path / "hub", hub_table("abcdef"), None)
        else:
            parquet(tmp_path / "hub")
        path = next((tmp_path / "hub").glob(f"*.{suffix}"))
        path.write_bytes(path.read_bytes()[:cut])
        with pytest.raises(AffuseError, match=path.name):
            checked(collected(tmp_path / "hub"))

    @pytest.mark.parametrize("seed", range(12))
    def test_bytes_that_were_changed_are_refused_or_change_a_clip(self, seed, tmp_path):
        """Whatever stands in a stranger's file, offsets are never followed out of it."""
        saved_to_disk(tmp_path / "hub", hub_table("abcdef"), None)
        path = next((tmp_path / "hub").glob("*.arrow"))
        raw = bytearray(path.read_bytes())
        start = 1100 + 97 * seed
        raw[start % len(raw)] ^= 0xFF
        path.write_bytes(bytes(raw))
        try:
            rows = checked(collected(tmp_path / "hub"))
        except AffuseError:
            return
        for row in rows:
            if row.audio is not None:
                assert 0 <= row.audio.offset <= row.audio.offset + row.audio.size <= len(raw)

    def test_a_name_without_its_bytes_is_a_fault(self, tmp_path):
        table = hub_table("ab")
        cells = [{"bytes": None, "path": "/etc/passwd"}, *table["audio"].to_pylist()[1:]]
        table = table.set_column(0, "audio", pa.array(cells, table["audio"].type))
        saved_to_disk(tmp_path / "hub", table, None)
        with pytest.raises(LabelTableError, match="whose bytes are not in the dataset"):
            checked(collected(tmp_path / "hub"))

    def test_text_that_is_no_utf8_is_refused(self, tmp_path):
        table = hub_table("ab")
        foreign = pa.array([b"f\xfcr", b"ok"]).view(pa.string())
        table = table.set_column(2, "text", foreign)
        saved_to_disk(tmp_path / "hub", table, None)
        with pytest.raises(NotPreparedError, match="damaged"):
            checked(collected(tmp_path / "hub"))

    @pytest.mark.parametrize(
        "options",
        [
            {"tasks": {"mood": "classes"}},
            {"columns": {"speeker": "who"}},
            {"classes": {"moood": "low"}},
        ],
    )
    def test_options_are_checked(self, options, tmp_path):
        saved_to_disk(tmp_path / "hub", hub_table("ab"), None)
        with pytest.raises(ConfigError):
            collected(tmp_path / "hub", **options)
