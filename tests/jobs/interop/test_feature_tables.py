"""What `affuse features import` makes of other people's files: by name, nothing silently, no traceback."""

import io
import json
import unicodedata
import zipfile

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster import storage
from jobs.__main__ import run
from jobs.catalog.features import read_features, resolve_features
from jobs.catalog.manifest import read_manifest

CLIPS = ("a", "b", "c", "d")


@pytest.fixture
def prepared(tmp_path, capsys):
    """Prepares a corpus of clips without media, every second of class `x`; returns its root."""

    def go(names=CLIPS, more=""):
        (tmp_path / "none").mkdir(exist_ok=True)
        header = "name,mood,score\n"
        rows = "".join(f"{n},{'xy'[k % 2]},{k / 4}\n" for k, n in enumerate(names))
        (tmp_path / "labels.csv").write_text(header + rows + more)
        root = str(tmp_path / "root")
        flags = ["--source", tmp_path / "none", "--labels", tmp_path / "labels.csv", "--root", root]
        tasks = ["--tasks", "mood=classification", "score=regression"]
        assert run(["prepare", "folder", *map(str, flags), *tasks]) == 0
        capsys.readouterr()
        return root

    return go


@pytest.fixture
def imported(tmp_path, capsys):
    """Imports a file; returns exit status, output, values by clip and the columns that are kept."""

    def go(root, file, *flags):
        if isinstance(file, str | bytes):
            path = tmp_path / "f.csv"
            path.write_bytes(file.encode() if isinstance(file, str) else file)
            file = path
        words = ["--root", root, "--file", str(file), "--name", "mine", "--modality", "audio"]
        status = run(["features", "import", *words, *flags])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        if status:
            return status, said.out + said.err, {}, []
        names = dict(
            zip(*read_manifest(root, ["clip_id", "name"]).to_pydict().values(), strict=True)
        )
        folder = resolve_features(root, "mine")
        rows = read_features(root, folder).to_pylist()
        facts = storage.read_json(storage.join(root, "features", folder, "descriptor.json"))
        found = {names[row["clip_id"]]: row["values"] for row in rows}
        return status, said.out + said.err, found, facts["columns"]

    return go


class TestWhichColumnsAreFeatures:
    def test_names_keep_their_zeros(self, prepared, imported):
        root = prepared(("00010", "00012", "7"))
        status, _, found, _ = imported(root, "name,f\n00010,1\n00012,2\n7,3\n")
        assert (status, found) == (0, {"00010": [[1]], "00012": [[2]], "7": [[3]]})

    @pytest.mark.parametrize("index", ["", "Unnamed: 0", "index", "level_0", "counted"])
    def test_an_index_is_none_and_is_named(self, prepared, imported, index):
        rows = "".join(f"{k},{n},{k * k},{k + 7}\n" for k, n in enumerate(CLIPS))
        status, out, found, columns = imported(prepared(), f"{index},name,f1,f2\n{rows}")
        assert (status, columns) == (0, ["f1", "f2"])
        assert f"{index or '(column 1)'} (an index)" in out
        assert found["d"] == [[9, 10]]

    def test_a_count_of_steps_is_none(self, prepared, imported):
        rows = "".join(f"{n},{k},{k * k}\n" for n in "ab" for k in range(5))
        status, out, found, columns = imported(prepared(), f"name,frame,f\n{rows}")
        assert (status, columns) == (0, ["f"])
        assert found["a"] == [[0], [1], [4], [9], [16]]
        assert "rows of one name are its steps: 5 steps a clip" in out

    @pytest.mark.parametrize("column", ["mood", "Mood", "score"])
    def test_the_label_is_none_by_its_name(self, prepared, imported, column):
        status, out, _, columns = imported(
            prepared(), f"name,{column},f\na,1,5\nb,0,6\nc,1,7\nd,0,9\n"
        )
        assert (status, columns) == (0, ["f"])
        assert f"not read: column {column}, because it is the label" in out

    def test_the_label_is_none_whatever_it_is_called(self, prepared, imported):
        names = [f"n{k:02d}" for k in range(24)]
        root = prepared(names)
        rows = "".join(f"{n},{3 - k % 2},{k / 4},{k % 3}\n" for k, n in enumerate(names))
        status, out, _, columns = imported(root, f"name,code,target,f\n{rows}")
        assert (status, columns) == (0, ["f"])
        assert "column code, because it is the label 'mood'" in out
        assert "column target, because it is the label 'score'" in out

    def test_the_label_is_none_in_an_array_either(self, prepared, imported, tmp_path):
        names = [f"n{k:02d}" for k in range(24)]
        values = np.stack([np.arange(24) % 2, np.arange(24) % 5], axis=1)
        np.savez(tmp_path / "f.npz", x=values, name=np.array(names))
        status, out, found, _ = imported(prepared(names), tmp_path / "f.npz", "--array", "x")
        assert (status, found["n07"]) == (0, [[2]])
        assert "number 0, because it is the label" in out

    def test_decimal_commas_are_read_and_told(self, prepared, imported):
        table = 'name,f1,f2\na,1,"2,5"\nb,3,"4,25"\n'
        status, out, found, columns = imported(prepared(), table)
        assert (status, columns, found["b"]) == (0, ["f1", "f2"], [[3, 4.25]])
        assert "f2: decimal commas" in out

    def test_words_are_named_as_not_read(self, prepared, imported):
        status, out, _, columns = imported(prepared(), "name,note,f\na,x,1\nb,y,2\n")
        assert (status, columns) == (0, ["f"])
        assert "not read: note (no numbers)" in out

    def test_a_column_that_is_numbers_in_part_is_a_fault(self, prepared, imported):
        table = "name,f,g,h\na,1,x,1\nb,oops,2,2\nc,3,3,#DIV/0!\n"
        status, out, _, _ = imported(prepared(), table)
        assert status == 1
        for part in (
            "3 faults",
            "'f': 1 of 3",
            "'oops' in row 2",
            "'g': 1 of 3",
            "'#DIV/0!' in row 3",
        ):
            assert part in out
        assert imported(prepared(), table.replace("h\n", "k\n"), "--columns", "f")[0] == 1

    def test_columns_that_are_chosen_leave_the_others_named(self, prepared, imported):
        table = "name,AU01_r,AU01_c,pose\na,1,x,3\nb,2,y,5\n"
        status, out, found, columns = imported(prepared(), table, "--columns", "AU*_r")
        assert (status, columns, found["b"]) == (0, ["AU01_r"], [[2]])
        assert "not read: AU01_c, pose" in out

    def test_a_gap_is_a_value_that_is_not_finite(self, prepared, imported):
        status, _, found, _ = imported(prepared(), "name,f,g\na,1,\nb,NaN,2\nc,NA,inf\n")
        assert (status, found["a"], found["b"], found["d"]) == (0, [[1, 0]], [[0, 2]], None)


class TestNames:
    def test_are_one_in_both_forms_of_an_accent(self, prepared, imported):
        apart, one = (unicodedata.normalize(form, "Zoë") for form in ("NFD", "NFC"))
        status, _, found, _ = imported(prepared((apart, "b")), f"name,f\n{one},1\nb,2\n")
        assert (status, found[one]) == (0, [[1]])

    def test_of_other_clips_fit_by_no_luck(self, prepared, imported, tmp_path):
        names = np.array(["test-001", "test-002"])
        np.savez(tmp_path / "f.npz", x=np.ones((2, 1)), name=names)
        root = prepared(("train-001", "train-002"))
        status, out, _, _ = imported(root, tmp_path / "f.npz", "--array", "x")
        assert (status, "names none of the clips" in out) == (1, True)

    def test_rows_without_any_are_not_joined_by_their_place(self, prepared, imported, tmp_path):
        np.savez(tmp_path / "f.npz", x=np.ones((2, 1)))
        status, out, _, _ = imported(
            prepared(("00000", "00001")), tmp_path / "f.npz", "--array", "x"
        )
        assert (status, "rows are never joined by their place" in out) == (1, True)

    def test_that_end_in_a_suffix_are_told_how_to_lose_it(self, prepared, imported):
        table = "name,f\na.wav,1\nb.wav,2\n"
        status, out, _, _ = imported(prepared(), table)
        assert (status, r"--rename '\.[A-Za-z0-9]+$='" in out) == (1, True)
        assert imported(prepared(), table, "--rename", r"\.[A-Za-z0-9]+$=")[0] == 0

    @pytest.mark.parametrize("column", ["Name", "FileName", "clip_id"])
    def test_of_the_column_are_asked_back(self, prepared, imported, column):
        status, out, _, _ = imported(prepared(), f"{column},f\na,1\nb,2\n")
        assert (status, f"type: --names {column}" in out) == (1, True)


class TestEveryKindOfTable:
    def test_the_same_features_come_out(self, prepared, imported, tmp_path):
        rows = [{"name": n, "f": k + 0.5, "g": -k * k} for k, n in enumerate(CLIPS)]
        lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
        text = "\n".join(lines) + "\n"
        (tmp_path / "f.tsv").write_text(text.replace(",", "\t"))
        (tmp_path / "f.txt").write_bytes(text.replace(",", ";").replace(".", ",").encode("utf-16"))
        (tmp_path / "f.jsonl").write_text("\n".join(map(json.dumps, rows)))
        (tmp_path / "f.json").write_text(json.dumps(rows))
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "f.parquet")
        (tmp_path / "g.csv").write_text(text)
        root = prepared()
        for file in ("g.csv", "f.tsv", "f.txt", "f.jsonl", "f.json", "f.parquet"):
            status, _, found, columns = imported(root, tmp_path / file)
            assert (status, columns) == (0, ["f", "g"])
            assert found == {n: [[k + 0.5, -k * k]] for k, n in enumerate(CLIPS)}

    def test_a_folder_of_tables_says_which_are_of_other_columns(self, prepared, imported, tmp_path):
        (tmp_path / "d").mkdir()
        for name, header in (("a", "f,g"), ("b", "f,h"), ("c", "f,g")):
            (tmp_path / "d" / f"{name}.csv").write_text(f"{header}\n1,2\n")
        status, out, _, _ = imported(prepared(), tmp_path / "d")
        assert (status, "1 files have other columns than a.csv: b.csv" in out) == (1, True)

    def test_a_long_cell_is_no_fault(self, prepared, imported):
        status, _, found, _ = imported(prepared(), f"name,f,note\na,1,{'x' * 200_000}\nb,2,y\n")
        assert (status, found["a"]) == (0, [[1]])


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


class TestArraysOfStrangers:
    def test_values_from_another_file_are_not_followed(self, prepared, imported, tmp_path):
        secret = tmp_path / "secret.txt"
        secret.write_bytes(b"SECRET-TOKEN-123")
        with h5py.File(tmp_path / "f.h5", "w") as file:
            file.create_dataset("x", (4, 4), "u1", external=[(str(secret), 0, 16)])
            file["name"] = list(CLIPS)
        status, out, _, _ = imported(prepared(), tmp_path / "f.h5", "--array", "x")
        assert (status, "never followed" in out) == (1, True)

    def test_a_virtual_set_and_a_linked_file_are_not_followed(self, prepared, imported, tmp_path):
        with h5py.File(tmp_path / "other.h5", "w") as file:
            file["x"] = np.ones((4, 2))
        layout = h5py.VirtualLayout((4, 2), "f8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (4, 2))
        with h5py.File(tmp_path / "f.h5", "w") as file:
            file.create_virtual_dataset("x", layout)
            file["y"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "x")
            file["name"] = list(CLIPS)
        root = prepared()
        status, out, _, _ = imported(root, tmp_path / "f.h5", "--array", "x")
        assert (status, "never followed" in out) == (1, True)
        assert imported(root, tmp_path / "f.h5", "--array", "y")[0] != 0

    def test_a_set_larger_than_memory_is_refused_before_it_is_read(
        self, prepared, imported, tmp_path
    ):
        with h5py.File(tmp_path / "f.h5", "w") as file:
            file.create_dataset("x", (10**6, 10**6), "f8", chunks=(1, 1000))
            file.create_dataset("y", data=np.ones((4, 2)))
            file["name"] = list(CLIPS)
        root = prepared()
        status, out, _, _ = imported(root, tmp_path / "f.h5", "--array", "x")
        assert (status, "declares 8,000.0 GB" in out) == (1, True)
        status, _, found, _ = imported(root, tmp_path / "f.h5", "--array", "y")
        assert (status, found["a"]) == (0, [[1, 1]])

    def test_an_npz_that_declares_more_than_it_holds(self, prepared, imported, tmp_path):
        header = {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)}
        with zipfile.ZipFile(tmp_path / "f.npz", "w") as file, file.open("x.npy", "w") as member:
            np.lib.format.write_array_header_1_0(member, header)
            member.write(b"\0" * 64)
        status, out, _, _ = imported(prepared(), tmp_path / "f.npz", "--array", "x")
        assert (status, "declares 8,000,000,000,000 bytes and holds" in out) == (1, True)

    def test_token_ids_are_no_features(self, prepared, imported, tmp_path):
        ids = np.array([[[101, 2054, 102, 0], [1, 1, 1, 0], [0, 0, 0, 0]]] * 4)
        np.savez(tmp_path / "f.npz", text_bert=ids, name=np.array(CLIPS))
        status, out, _, _ = imported(prepared(), tmp_path / "f.npz", "--array", "text_bert")
        assert (status, "token ids" in out) == (1, True)

    def test_one_array_a_clip_of_differing_width_names_the_widths(
        self, prepared, imported, tmp_path
    ):
        np.savez(tmp_path / "f.npz", a=np.ones(3), b=np.ones(4))
        status, out, _, _ = imported(prepared(), tmp_path / "f.npz")
        assert status != 0
        assert "widths are: a 3, b 4" in out

    @pytest.mark.parametrize(
        "arrays",
        [
            {"x": np.zeros((0, 3)), "name": np.zeros(0, "U1")},
            {"x": np.zeros((4, 0)), "name": np.array(CLIPS)},
            {"x": np.float64(3), "name": np.array(CLIPS)},
            {"x": np.ones((4, 2)), "name": np.array("a")},
            {"x": np.ones((4, 2)), "name": np.array(["a", "", "c", "d"])},
            {"x": np.ones((4, 2)), "name": np.array(["a", "a", "c", "d"])},
            {"x": np.ones((4, 2), "c8"), "name": np.array(CLIPS)},
            {"x": np.ones((4, 2)), "name": np.array(["a", "b\ud800", "c", "d"])},
            {
                "x": np.ones((4, 3, 2)),
                "name": np.array(CLIPS),
                "x_lengths": np.array([1, -1, 2, 3]),
            },
            {
                "x": np.ones((4, 3, 2)),
                "name": np.array(CLIPS),
                "x_lengths": np.array([1, np.nan, 2, 3]),
            },
        ],
    )
    def test_what_cannot_be_meant_is_one_line(self, prepared, imported, tmp_path, arrays):
        (tmp_path / "f.npz").write_bytes(npz(**arrays))
        status, out, _, _ = imported(prepared(), tmp_path / "f.npz", "--array", "x")
        assert (status, out.count("\n")) == (1, 1)
