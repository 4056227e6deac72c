"""Ready-made features become a table like any encoder's, and go out again as other tools read them."""

import json
import os
import pickle
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cluster import storage
from cluster.errors import ConfigError, NotPreparedError, TableError
from cluster.tables import MANIFEST, TRANSCRIPTS
from jobs import features
from jobs.catalog.features import read_features, resolve_features
from jobs.features import Export, Import
from jobs.interop.import_features import Layout, read_ready
from jobs.interop.pickle_names import UnsafePickleError

DATA = Path(os.environ.get("AFFUSE_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
NAMES = ["01-a", "01-b", "01-c", "01-d"]


def prepare(root, names=NAMES, per_unit=2, version="m1", texts=None):
    """A dataset of named clips, two a unit, with one task of two classes."""
    count = len(names)
    columns = {name: [None] * count for name in MANIFEST.schema.names}
    columns |= {
        "clip_id": [hash_of(name) for name in names],
        "name": names,
        "unit": [f"u{names[index - index % per_unit]}" for index in range(count)],
        "text": [f"text of {name}" for name in names] if texts is None else texts,
        "split": [("train", "train", "valid", "test")[index % 4] for index in range(count)],
        "cost": [1.0] * count,
    }
    table = MANIFEST.conform(
        pa.table(columns, schema=MANIFEST.schema).append_column(
            "emotion", pa.array([("calm", "glad")[index % 2] for index in range(count)])
        )
    )
    uri = storage.join(str(root), "manifest", version, "part-00000.parquet")
    storage.publish_table(table, uri, row_group_size=per_unit)
    facts = {
        "name": "toy",
        "manifest": version,
        "tasks": {"emotion": {"kind": "classification", "classes": ["calm", "glad"]}},
    }
    storage.publish_json(facts, storage.join(str(root), "dataset.json"))
    return str(root)


def transcripts(root, folder):
    """A table of transcripts in which the last clip is silent."""
    name, _, fingerprint = folder.partition("-")
    facts = {"name": name, "fingerprint": fingerprint, "reads": []}
    storage.publish_json(facts, f"{root}/transcripts/{folder}/descriptor.json")
    columns = {name: [None] * len(NAMES) for name in TRANSCRIPTS.schema.names}
    columns |= {
        "clip_id": [hash_of(name) for name in NAMES],
        "text": [*(f"{folder} {name}" for name in NAMES[:3]), ""],
        "status": ["ok"] * len(NAMES),
    }
    table = TRANSCRIPTS.conform(pa.table(columns, schema=TRANSCRIPTS.schema))
    storage.publish_table(table, f"{root}/transcripts/{folder}/rows.parquet")


def hash_of(name):
    return zlib.crc32(name.encode())


@pytest.fixture
def root(tmp_path):
    return prepare(tmp_path / "root")


@pytest.fixture
def npz(tmp_path):
    """Three of the four clips, and one that is no clip."""
    file = tmp_path / "f.npz"
    values = np.arange(20, dtype=np.float32).reshape(4, 5)
    np.savez(file, x=values, name=np.array(["01-c", "01-a", "01-b", "01-zz"]))
    return str(file)


def importing(root, file, **changes):
    arguments = {"root": root, "file": file, "name": "mine", "modality": "video", "array": "x"}
    config = Import(**{**arguments, **changes})
    features.main(config)
    return read_features(root, resolve_features(root, config.name)).to_pylist()


class TestImport:
    def test_every_clip_has_one_row_in_the_manifests_order(self, root, npz):
        rows = importing(root, npz)
        assert [row["clip_id"] for row in rows] == [hash_of(name) for name in NAMES]
        assert [row["status"] for row in rows] == ["ok", "ok", "ok", "missing"]
        assert rows[0]["values"] == [[5, 6, 7, 8, 9]]
        assert rows[2]["values"] == [[0, 1, 2, 3, 4]]
        assert rows[3]["values"] is None
        assert rows[3]["error"] == "missing: the imported file has no such clip"

    def test_names_that_are_no_clips_are_listed(self, root, npz, capsys):
        importing(root, npz)
        said = capsys.readouterr().out
        assert "1 names of the file are no clips of the manifest: 01-zz" in said
        assert "3 of 4 clips have features, the rest are status missing" in said

    def test_of_a_rest_is_spoken_where_there_is_one(self, root, tmp_path, capsys):
        np.savez(tmp_path / "all.npz", x=np.ones((4, 2), np.float32), name=np.array(NAMES))
        importing(root, str(tmp_path / "all.npz"))
        assert "4 of 4 clips have features\n" in capsys.readouterr().out

    def test_the_descriptor_is_an_encoders(self, root, npz):
        importing(root, npz, licence="CC BY 4.0", hop_s=0.5)
        folder = resolve_features(root, "mine")
        facts = storage.read_json(storage.join(root, "features", folder, "descriptor.json"))
        assert folder == f"mine-{facts['fingerprint']}"
        assert facts["dim"] == facts["layer_dim"] == 5
        assert (facts["dtype"], facts["hop_s"], facts["manifest"]) == ("float32", 0.5, "m1")
        assert facts["licence"] == "CC BY 4.0"
        assert json.dumps(facts).count(os.path.dirname(npz)) == 0

    def test_values_beyond_half_precision_survive(self, root, tmp_path):
        np.savez(tmp_path / "g.npz", x=np.full((1, 2), 3e5, np.float32), name=np.array(["01-a"]))
        assert importing(root, str(tmp_path / "g.npz"))[0]["values"] == [[3e5, 3e5]]

    def test_the_same_file_again_does_nothing(self, root, npz, capsys):
        importing(root, npz)
        capsys.readouterr()
        importing(root, npz)
        assert capsys.readouterr().out.splitlines()[-1].startswith("nothing to do: ")

    def test_clips_added_later_are_all_that_is_added(self, root, npz, tmp_path):
        importing(root, npz)
        prepare(tmp_path / "root", [*NAMES, "01-zz", "01-e"], version="m2")
        rows = importing(root, npz)
        assert [row["status"] for row in rows] == ["ok", "ok", "ok", "missing", "ok", "missing"]

    def test_other_content_is_another_table(self, root, npz, tmp_path):
        importing(root, npz)
        np.savez(tmp_path / "g.npz", x=np.zeros((1, 5), np.float32), name=np.array(["01-a"]))
        with pytest.raises(ConfigError, match="'mine' means several tables"):
            importing(root, str(tmp_path / "g.npz"))

    def test_what_is_not_finite_is_zero_and_said(self, root, tmp_path, capsys):
        values = np.array([[1, np.nan, -np.inf]], np.float32)
        np.savez(tmp_path / "g.npz", x=values, name=np.array(["01-a"]))
        row = importing(root, str(tmp_path / "g.npz"))[0]
        assert (row["status"], row["values"]) == ("partial", [[1, 0, 0]])
        assert row["error"] == "partial: 2 of 3 values were not finite and are 0"
        assert "\n1 of them hold values that are not finite: these are 0" in capsys.readouterr().out

    def test_padding_of_zeros_is_cut_on_request(self, root, tmp_path):
        values = np.zeros((2, 4, 2), np.float32)
        values[0, 1:3] = 1
        np.savez(tmp_path / "g.npz", x=values, name=np.array(["01-a", "01-b"]))
        rows = importing(root, str(tmp_path / "g.npz"), padding="zeros", hop_s=0.5)
        assert rows[0]["values"] == [[1, 1], [1, 1]]
        assert (rows[0]["step_start_s"], rows[0]["step_end_s"]) == ([0.5, 1.0], [1.0, 1.5])
        assert rows[1]["status"] == "missing"

    def test_times_that_nobody_gave_are_null(self, root, npz):
        row = importing(root, npz)[0]
        assert row["step_start_s"] == [None]
        assert row["valid"] == [True]

    def test_the_usual_meaning_of_a_width_is_said(self, root, tmp_path, capsys):
        np.savez(tmp_path / "g.npz", x=np.zeros((1, 74), np.float32), name=np.array(["01-a"]))
        importing(root, str(tmp_path / "g.npz"), modality="audio")
        assert "audio, 74 wide: usually COVAREP" in capsys.readouterr().out


class TestNames:
    def test_renaming_by_pattern(self, root, tmp_path):
        np.savez(tmp_path / "g.npz", x=np.ones((1, 2)), name=np.array(["clip_a.mp4"]))
        rename = {r"^clip_": "01-", r"\.mp4$": ""}
        assert importing(root, str(tmp_path / "g.npz"), rename=rename)[0]["status"] == "ok"

    def test_a_pattern_that_merges_names_is_refused(self, root, npz):
        with pytest.raises(ConfigError, match="rename makes one name of several"):
            importing(root, npz, rename={".*": "x"})

    def test_another_channel_of_the_same_takes_is_seen_through(self, tmp_path, capsys):
        take = "-01-03-01-01-01-0"
        root = prepare(tmp_path / "ravdess", [f"01{take}{k}" for k in range(4)])
        names = np.array([f"03{take}{k}" for k in (0, 2)])
        np.savez(tmp_path / "g.npz", x=np.ones((2, 2)), name=names)
        rows = importing(root, str(tmp_path / "g.npz"))
        assert [row["status"] for row in rows] == ["ok", "missing", "ok", "missing"]
        assert "takes 03-... are 01-... in the manifest" in capsys.readouterr().out

    @pytest.mark.parametrize("names", [["03-a", "03-b"], ["03-a", "04-b"], ["x", "y"]])
    def test_names_that_fit_nowhere_are_shown_from_both_sides(self, root, tmp_path, names):
        np.savez(tmp_path / "g.npz", x=np.ones((2, 2)), name=np.array(names))
        with pytest.raises(
            TableError, match=rf"it has '{names[0]}', the manifest '01-a'; type: --re"
        ):
            importing(root, str(tmp_path / "g.npz"))


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"name": "a b"}, "expected letters, digits and underscores"),
            ({"hop_s": 0.0}, "hop_s is a time above 0"),
        ],
    )
    def test_a_bad_field(self, changes, said):
        with pytest.raises(ConfigError, match=said):
            Import(**{"root": "r", "file": "f", "name": "n", "modality": "text", **changes})

    def test_an_encoders_name_is_its_own(self, monkeypatch):
        monkeypatch.setattr(features, "ENCODERS", {"minilm": "x"})
        with pytest.raises(ConfigError, match="'minilm' is an encoder's"):
            Import(root="r", file="f", name="minilm", modality="text")

    def test_a_root_without_a_manifest(self, tmp_path, npz):
        with pytest.raises(NotPreparedError, match="affuse prepare"):
            importing(str(tmp_path / "empty"), npz)

    def test_a_pickle_that_runs_something(self, root, tmp_path):
        class Bad:
            def __reduce__(self):
                return (os.system, ("true",))

        (tmp_path / "f.pkl").write_bytes(pickle.dumps({"train": {"x": Bad()}}))
        with pytest.raises(UnsafePickleError, match=r"it asks for posix\.system"):
            importing(root, str(tmp_path / "f.pkl"))

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"out": "f.csv"}, "ends in .pkl or .npz"),
            ({"inputs": {"image": "x"}}, r"inputs \['image'\]: expected audio="),
            ({"inputs": {}}, "expected audio="),
            ({"max_steps": 0}, "max_steps is 1 or more"),
        ],
    )
    def test_a_bad_export(self, changes, said):
        with pytest.raises(ConfigError, match=said):
            Export(**{"root": "r", "inputs": {"text": "t"}, "out": "f.pkl", **changes})


class TestExport:
    @pytest.fixture
    def filled(self, root, tmp_path):
        """Two tables: sequences of 1 to 3 steps of video, pooled text."""
        steps = {name: np.full((1 + i, 2), i + 1, np.float32) for i, name in enumerate(NAMES[:3])}
        (tmp_path / "v.pkl").write_bytes(
            pickle.dumps({"x": list(steps.values()), "id": list(steps)})
        )
        np.savez(tmp_path / "t.npz", x=np.ones((4, 3), np.float32), name=np.array(NAMES))
        importing(root, str(tmp_path / "v.pkl"), name="clips")
        importing(root, str(tmp_path / "t.npz"), name="words", modality="text")
        return root

    def export(self, root, out, **changes):
        inputs = {"text": "words", "video": "clips"}
        features.main(Export(**{"root": root, "inputs": inputs, "out": str(out), **changes}))

    def test_the_layout_of_mmsa(self, filled, tmp_path):
        self.export(filled, tmp_path / "out.pkl")
        content = pickle.loads((tmp_path / "out.pkl").read_bytes())
        assert set(content) == {"train", "valid", "test"}
        train = content["train"]
        assert train["id"] == ["01-a", "01-b"]
        assert train["raw_text"] == ["text of 01-a", "text of 01-b"]
        assert train["annotations"] == ["calm", "glad"]
        assert train["classification_labels"].tolist() == [0, 1]
        assert train["class_names"] == ["calm", "glad"]
        assert "regression_labels" not in train  # an index is no number that says how much
        assert train["text"].shape == (2, 1, 3)
        assert train["vision"].shape == (2, 3, 2)
        assert train["vision_lengths"].tolist() == [1, 2]
        assert content["test"]["vision_lengths"].tolist() == [0]

    def test_what_goes_out_comes_in_again(self, filled, tmp_path):
        self.export(filled, tmp_path / "out.pkl")
        ready = read_ready(str(tmp_path / "out.pkl"), Layout(array="vision"))
        found = dict(zip(ready.names, ready.values, strict=True))
        assert [len(found[name]) for name in NAMES] == [1, 2, 3, 0]
        rows = importing(filled, str(tmp_path / "out.pkl"), name="again", array="vision")
        assert [row["status"] for row in rows] == ["ok", "ok", "ok", "missing"]

    def test_an_npz_without_pickles(self, filled, tmp_path):
        self.export(filled, tmp_path / "out.npz", max_steps=2)
        with np.load(tmp_path / "out.npz", allow_pickle=False) as out:
            assert out["name"].tolist() == NAMES
            assert out["label"].tolist() == ["calm", "glad", "calm", "glad"]
            assert out["classes"].tolist() == ["calm", "glad"]
            assert out["video"].shape == (4, 2, 2)
            assert out["video_lengths"].tolist() == [1, 2, 2, 0]
            assert out["split"].tolist() == ["train", "train", "valid", "test"]

    @pytest.mark.parametrize("out", ["out.pkl", "out.npz"])
    @pytest.mark.parametrize("own", [[None] * 4, ["", None, "its own", None]])
    def test_clips_without_words_get_those_that_their_text_encoder_has_read(
        self, tmp_path, out, own
    ):
        root = prepare(tmp_path / "heard", texts=own)
        np.savez(tmp_path / "t.npz", x=np.ones((4, 3), np.float32), name=np.array(NAMES))
        importing(root, str(tmp_path / "t.npz"), name="words", modality="text")
        uri = f"{root}/features/{resolve_features(root, 'words')}/descriptor.json"
        storage.publish_json({**storage.read_json(uri), "upstream": ["e1"]}, uri)
        for name in ("ear-e1", "other-e2"):
            transcripts(root, name)
        self.export(root, tmp_path / out, inputs={"text": "words"})
        heard = (f"ear-e1 {clip}" for clip in NAMES)
        expected = [said if text is None else text for text, said in zip(own, heard, strict=True)]
        expected[3] = own[3] or ""  # it was heard, and there was nothing
        if out.endswith(".npz"):
            with np.load(tmp_path / out) as found:
                assert found["transcript"].tolist() == expected
        else:
            content = pickle.loads((tmp_path / out).read_bytes())
            found = [text for part in content.values() for text in part["raw_text"]]
            assert found == expected

    @pytest.mark.parametrize("out", ["out.pkl", "out.npz"])
    @pytest.mark.parametrize(("most", "cut"), [(1, 2), (2, 1), (3, 0)])
    def test_sequences_that_are_cut_are_counted_and_what_keeps_them_is_named(
        self, filled, tmp_path, capsys, out, most, cut
    ):
        self.export(filled, tmp_path / out, max_steps=most)
        said = capsys.readouterr().out
        assert (f"video: {cut} of 4 clips have more than {most} steps" in said) == (cut > 0)
        assert ("to keep all, type: --max-steps 3" in said) == (cut > 0)
        assert "text: " not in said

    @pytest.mark.parametrize("out", ["out.pkl", "out.npz"])
    @pytest.mark.parametrize("asked", ["audio", "text", "video"])
    @pytest.mark.parametrize(("table", "is_of"), [("words", "text"), ("clips", "video")])
    def test_a_table_goes_out_as_the_modality_that_it_is_of(
        self, filled, tmp_path, asked, table, is_of, out
    ):
        if asked == is_of:
            self.export(filled, tmp_path / out, inputs={asked: table})
            return
        said = rf"{asked}={table}: {table}-\w+ is of {is_of}, not of {asked}; type: {is_of}={table}"
        with pytest.raises(ConfigError, match=said):
            self.export(filled, tmp_path / out, inputs={asked: table})
        assert not (tmp_path / out).exists()

    def test_an_unknown_task_names_the_nearest(self, filled, tmp_path):
        with pytest.raises(ConfigError, match="no task 'emotions'; did you mean 'emotion'"):
            self.export(filled, tmp_path / "out.npz", task="emotions")


class TestRavdess:
    """The ready face features that stand beside the speech of RAVDESS."""

    @pytest.mark.skipif(not (DATA / "ravdess").is_dir(), reason="no data under AFFUSE_DATA")
    def test_every_clip_finds_its_action_units(self, tmp_path):
        names = [line.partition(",")[0] for line in (DATA / "ravdess/labels.csv").open()][1:]
        root = prepare(tmp_path / "r", names, per_unit=64)
        rows = importing(
            root,
            str(DATA / "ravdess" / "au_mfcc.npz"),
            name="au_mean",
            array="au_mean",
            names=("name",),
        )
        assert len(rows) == 1440
        assert {row["status"] for row in rows} == {"ok"}
        folder = resolve_features(root, "au_mean")
        facts = storage.read_json(storage.join(root, "features", folder, "descriptor.json"))
        assert facts["dim"] == 35
        assert facts["columns"][0] == "AU01_r"
