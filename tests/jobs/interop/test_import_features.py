"""Features come out the same, whichever file they lie in, and a wrong key is answered."""

import pickle

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from cluster.errors import AbsentError, ConfigError, TableError
from jobs.interop.import_features import Layout, read_ready

RNG = np.random.default_rng(0)
NAMES = ["c", "a", "b"]
POOLED = RNG.normal(size=(3, 4)).astype(np.float32)
STEPS = RNG.normal(size=(3, 5, 4)).astype(np.float32)
LENGTHS = np.array([5, 2, 3])


def write(folder, kind):
    """The same pooled features in a file of some kind, and the layout that finds them."""
    file = folder / f"features.{kind.partition('-')[0]}"
    named = Layout(array="x", names=("name",))
    if kind == "npz":
        np.savez(file, x=POOLED, name=np.array(NAMES))
    elif kind == "npz-keys":
        file = folder / "keys.npz"
        np.savez(file, **dict(zip(NAMES, POOLED, strict=True)))
        named = Layout()
    elif kind == "h5":
        with h5py.File(file, "w") as out:
            out["x"] = POOLED
            out["name"] = NAMES
    elif kind == "h5-group":
        file = folder / "group.h5"
        with h5py.File(file, "w") as out:
            for name, row in zip(NAMES, POOLED, strict=True):
                out[f"x/{name}"] = row
    elif kind == "pkl":
        file.write_bytes(pickle.dumps({"x": POOLED, "name": NAMES}))
    elif kind == "pkl-splits":
        file = folder / "splits.pkl"
        train = {"x": POOLED[:2], "name": NAMES[:2]}
        test = {"x": POOLED[2:], "name": NAMES[2:]}
        file.write_bytes(pickle.dumps({"train": train, "test": test}))
    elif kind == "csv":
        pa_csv.write_csv(table(), file)
        named = Layout()
    elif kind == "parquet":
        pq.write_table(table(), file)
        named = Layout()
    elif kind == "parquet-list":
        file = folder / "list.parquet"
        pq.write_table(pa.table({"name": NAMES, "x": list(POOLED)}), file)
    elif kind == "folder":
        file = folder / "clips"
        file.mkdir()
        for name, row in zip(NAMES, POOLED, strict=True):
            np.save(file / f"{name}.npy", row)
        named = Layout()
    return str(file), named


def table():
    columns = {f"f{index}": POOLED[:, index].astype(np.float64) for index in range(4)}
    return pa.table({"name": NAMES, **columns, "note": ["x", "y", "z"]})


KINDS = (
    "npz",
    "npz-keys",
    "h5",
    "h5-group",
    "pkl",
    "pkl-splits",
    "csv",
    "parquet",
    "parquet-list",
    "folder",
)


class TestEveryKindOfFile:
    @pytest.mark.parametrize("kind", KINDS)
    def test_the_same_features_come_out(self, kind, tmp_path):
        ready = read_ready(*write(tmp_path, kind))
        found = dict(zip(ready.names, ready.values, strict=True))
        assert set(found) == set(NAMES)
        for name, row in zip(NAMES, POOLED, strict=True):
            assert found[name].dtype == np.float32
            np.testing.assert_array_equal(found[name], row[None])

    def test_all_have_one_content_hash_whatever_the_order_of_clips(self, tmp_path):
        assert len({read_ready(*write(tmp_path, kind)).content_hash for kind in KINDS}) == 1

    def test_another_value_or_name_is_another_content(self, tmp_path):
        base = read_ready(*write(tmp_path, "npz")).content_hash
        np.savez(tmp_path / "b.npz", x=POOLED + 1e-6, name=np.array(NAMES))
        np.savez(tmp_path / "c.npz", x=POOLED, name=np.array(["c", "a", "d"]))
        others = [
            read_ready(str(tmp_path / file), Layout(array="x")).content_hash
            for file in ("b.npz", "c.npz")
        ]
        assert len({base, *others}) == 3


class TestSequences:
    def test_steps_are_cut_at_the_lengths_beside_them(self, tmp_path):
        np.savez(tmp_path / "f.npz", x=STEPS, x_lengths=LENGTHS, name=np.array(NAMES))
        ready = read_ready(str(tmp_path / "f.npz"), Layout(array="x"))
        assert [len(array) for array in ready.values] == [5, 2, 3]
        np.testing.assert_array_equal(ready.values[1], STEPS[1, :2])
        assert ready.notes == ("number of real steps from 'x_lengths'",)

    def test_ragged_lists_of_a_pickle(self, tmp_path):
        ragged = [STEPS[index, :length] for index, length in enumerate(LENGTHS)]
        (tmp_path / "f.pkl").write_bytes(pickle.dumps({"x": ragged, "id": NAMES}))
        ready = read_ready(str(tmp_path / "f.pkl"), Layout(array="x"))
        assert [array.shape for array in ready.values] == [(5, 4), (2, 4), (3, 4)]

    def test_a_clip_without_a_list_has_no_steps(self, tmp_path):
        rows = pa.table({"name": ["a", "b"], "x": [None, [[1.0, 2.0], [3.0, 4.0]]]})
        pq.write_table(rows, tmp_path / "f.parquet")
        ready = read_ready(str(tmp_path / "f.parquet"), Layout(array="x"))
        assert [array.shape for array in ready.values] == [(0, 2), (2, 2)]

    def test_the_layout_of_mmsa(self, tmp_path):
        part = {
            "vision": STEPS,
            "vision_lengths": [5, 2, 3],
            "id": [[name] for name in NAMES],
            "raw_text": np.array(["x", "y", "z"]),
        }
        part2 = {**part, "id": ["d", "e", "f"]}
        (tmp_path / "f.pkl").write_bytes(pickle.dumps({"train": part, "valid": part2}))
        ready = read_ready(str(tmp_path / "f.pkl"), Layout(array="vision"))
        assert ready.names == ("c", "a", "b", "d", "e", "f")
        assert ready.splits == ("train",) * 3 + ("valid",) * 3
        assert [len(array) for array in ready.values] == [5, 2, 3] * 2

    def test_arrays_by_split_in_their_names_and_rows_without_names(self, tmp_path):
        np.savez(tmp_path / "f.npz", audio_train=STEPS, audio_test=STEPS[:1])
        ready = read_ready(str(tmp_path / "f.npz"), Layout(array="audio_{split}"))
        assert ready.names == ("train_00000", "train_00001", "train_00002", "test_00000")
        assert ready.splits[-1] == "test"

    def test_the_layout_of_the_cmu_sdk_gives_the_time_of_each_step(self, tmp_path):
        with h5py.File(tmp_path / "f.csd", "w") as file:
            for index, name in enumerate(NAMES):
                file[f"covarep/data/{name}/features"] = STEPS[index]
                file[f"covarep/data/{name}/intervals"] = np.arange(10).reshape(5, 2)
        ready = read_ready(str(tmp_path / "f.csd"), Layout(array="covarep/data"))
        assert sorted(ready.names) == sorted(NAMES)
        assert ready.intervals is not None
        assert ready.intervals[0].shape == (5, 2)

    def test_rows_of_a_table_with_one_name_are_its_steps(self, tmp_path):
        rows = pa.table({"name": ["a", "a", "b"], " AU01_r": [1.0, 2.0, 3.0], "t": [0, 1, 0]})
        pa_csv.write_csv(rows, tmp_path / "f.csv")
        ready = read_ready(str(tmp_path / "f.csv"), Layout(columns=("AU*_r",)))
        assert ready.columns == ("AU01_r",)
        assert [array.tolist() for array in ready.values] == [[[1.0], [2.0]], [[3.0]]]

    def test_a_folder_of_tables_as_openface_writes_them(self, tmp_path):
        folder = tmp_path / "au"
        folder.mkdir()
        for name in NAMES:
            pa_csv.write_csv(
                pa.table({"frame": [1, 2], " AU01_r": [0.5, 1.5]}), folder / f"{name}.csv"
            )
        ready = read_ready(str(folder), Layout(columns=("AU*",)))
        assert ready.names == ("a", "b", "c")
        assert ready.values[0].tolist() == [[0.5], [1.5]]


class TestNames:
    def test_several_keys_make_one_name(self, tmp_path):
        np.savez(tmp_path / "f.npz", x=POOLED, d=np.array([0, 0, 1]), u=np.array([0, 1, 0]))
        layout = Layout(array="x", names=("d", "u"), name_format="dia{}_utt{}")
        assert read_ready(str(tmp_path / "f.npz"), layout).names == (
            "dia0_utt0",
            "dia0_utt1",
            "dia1_utt0",
        )

    def test_bytes_and_whole_floats_read_as_text(self, tmp_path):
        np.savez(tmp_path / "f.npz", x=POOLED, id=np.array([b"a", b"b", b"c"]))
        assert read_ready(str(tmp_path / "f.npz"), Layout(array="x")).names == ("a", "b", "c")
        np.savez(tmp_path / "g.npz", x=POOLED, id=np.array([1.0, 2.0, 3.0]))
        assert read_ready(str(tmp_path / "g.npz"), Layout(array="x")).names == ("1", "2", "3")

    def test_names_of_the_dimensions_are_kept_where_they_fit(self, tmp_path):
        dims = np.array(["p", "q", "r", "s"])
        np.savez(tmp_path / "f.npz", au_mean=POOLED, au_names=dims, name=np.array(NAMES))
        assert read_ready(str(tmp_path / "f.npz"), Layout(array="au_mean")).columns == tuple(dims)


class TestRefusals:
    @pytest.fixture
    def npz(self, tmp_path):
        file = tmp_path / "f.npz"
        np.savez(
            file,
            x=POOLED,
            name=np.array(NAMES),
            twice=np.array(["a", "a", "b"]),
            short=np.array(["a"]),
            words=np.array(["p", "q", "r"]),
            deep=np.zeros((1, 2, 3, 4)),
            objects=np.array(NAMES, object),
        )
        return str(file)

    @pytest.mark.parametrize(
        ("layout", "said"),
        [
            (Layout(array="xx"), "no array 'xx'; "),
            (Layout(array="x", names=("nam",)), "no array 'nam'; did you mean 'name'"),
            (Layout(array="x", names=("twice",)), r"some names \(1\) stand there twice: a"),
            (Layout(array="x", names=("objects",)), r"'objects': holds objects .*astype\('U'\)"),
            (Layout(array="x", names=("short",)), "1 names in 'short', 3 rows in 'x'"),
            (Layout(array="x", lengths="lens"), "no array 'lens'"),
            (Layout(array="x", lengths="short"), "lengths in 'short' are <U1, expected numbers"),
            (Layout(array="words"), "expected numbers"),
            (Layout(array="deep"), r"of shape \(1, 2, 3, 4\)"),
            (Layout(), "expected numbers|which array"),
        ],
    )
    def test_what_does_not_fit_is_answered(self, npz, layout, said):
        with pytest.raises((ConfigError, TableError), match=said):
            read_ready(npz, layout)

    def test_a_missing_file_and_an_unknown_kind(self, tmp_path):
        with pytest.raises(AbsentError, match="is not there"):
            read_ready(str(tmp_path / "no.npz"), Layout())
        (tmp_path / "f.mat").touch()
        with pytest.raises(ConfigError, match="expected npz, npy, h5"):
            read_ready(str(tmp_path / "f.mat"), Layout())

    @pytest.mark.parametrize("kind", ["npz", "npy", "h5", "pkl", "parquet"])
    def test_a_broken_file_of_every_kind(self, kind, tmp_path):
        file = tmp_path / f"f.{kind}"
        file.write_bytes(b"a,b\n1,2,3\n\xff")
        with pytest.raises(
            TableError, match=r"not a readable|damaged or cut off, expected Parquet"
        ):
            read_ready(str(file), Layout())

    def test_an_npz_with_a_pickle_inside_is_not_opened(self, tmp_path):
        np.savez(tmp_path / "f.npz", x=np.array([{}], object))
        with pytest.raises(TableError, match="holds objects of Python"):
            read_ready(str(tmp_path / "f.npz"), Layout(array="x"))

    def test_clips_of_different_width(self, tmp_path):
        (tmp_path / "d").mkdir()
        np.save(tmp_path / "d" / "a.npy", np.zeros((2, 3)))
        np.save(tmp_path / "d" / "b.npy", np.zeros((2, 4)))
        with pytest.raises(TableError, match=r"one width for all clips, came \[3, 4\]"):
            read_ready(str(tmp_path / "d"), Layout())

    def test_tables_without_names_or_numbers(self, tmp_path):
        pa_csv.write_csv(pa.table({"q": ["a"], "x": [1.0]}), tmp_path / "f.csv")
        with pytest.raises(TableError, match="which column names the clips"):
            read_ready(str(tmp_path / "f.csv"), Layout())
        with pytest.raises(ConfigError, match=r"no column 'AU\*'"):
            read_ready(str(tmp_path / "f.csv"), Layout(names=("q",), columns=("AU*",)))
        pa_csv.write_csv(pa.table({"name": ["a"], "x": ["t"]}), tmp_path / "g.csv")
        with pytest.raises(TableError, match="no column of numbers"):
            read_ready(str(tmp_path / "g.csv"), Layout())
