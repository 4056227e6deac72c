"""Encoding: every clip one row, nothing lost, nothing twice, one bad clip costs one clip."""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cluster.errors import ConfigError, PlanError, TooManyFailuresError
from cluster.resources import WorkersConfig
from cluster.session import SessionConfig, ray_session
from cluster.unit_tables import locate
from encoders import ENCODERS, TRANSCRIBERS
from jobs import encode
from jobs.catalog.features import feature_folders, read_features, resolve_features
from jobs.catalog.layout import features_uri, transcripts_uri
from jobs.stream import pipeline
from jobs.stream.selection import encoder_table

TOYS = str(Path(__file__).parent / "toys")
pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def corpus():
    """The toys, importable here and on workers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOYS)
        patch.setenv("PYTHONPATH", TOYS)
        patch.setitem(ENCODERS, "toy_audio", "toy_audio")
        patch.setitem(ENCODERS, "toy_text", "toy_text")
        patch.setitem(TRANSCRIBERS, "toy_ear", "toy_ear")
        import toy_corpus

        yield toy_corpus
        for name in [name for name in sys.modules if name.startswith("toy_")]:
            del sys.modules[name]


@pytest.fixture(scope="module")
def session(corpus):
    """One Ray for all tests of this file, with a made-up GPU that costs nothing."""
    with ray_session(SessionConfig(num_cpus=2, num_gpus=1)):
        yield


def config(root, *encoders, **changes):
    changes.setdefault("workers", WorkersConfig(gpus_per_actor=0, actors=1))
    changes.setdefault("tracking", False)
    return encode.Config(
        root=str(root), encoders=encoders, session=SessionConfig(num_cpus=2, num_gpus=1), **changes
    )


def rows(root, name):
    return sorted(
        read_features(str(root), resolve_features(str(root), name)).to_pylist(),
        key=lambda row: row["clip_id"],
    )


def raw_rows(root, name):
    """What somebody reads off the files of a table without us."""
    files = Path(features_uri(str(root), resolve_features(str(root), name))).glob("*.parquet")
    found = [row for file in files for row in pq.read_table(file).to_pylist()]
    return sorted(found, key=lambda row: row["clip_id"])


def table_files(root):
    """The files of all feature tables, and when each was written."""
    files = Path(features_uri(str(root))).glob("*/*.parquet")
    return {file: file.stat().st_mtime_ns for file in files}


@pytest.fixture(scope="module")
def encoded(corpus, session, tmp_path_factory):
    """A corpus of 22 clips in 6 units with both toys, by two actors."""
    root = corpus.write_corpus(tmp_path_factory.mktemp("encoded"), 22)
    two = WorkersConfig(gpus_per_actor=0, actors=2)
    encode.main(config(root, "toy_text", "toy_audio", workers=two))
    return root


class TestOneRowAClip:
    def test_every_clip_has_one_row_per_encoder(self, encoded):
        for name in ("toy_text", "toy_audio"):
            assert [row["clip_id"] for row in rows(encoded, name)] == list(range(22))
            assert {row["status"] for row in rows(encoded, name)} == {"ok"}

    def test_values_are_what_the_encoder_says_of_that_clip(self, encoded):
        row = rows(encoded, "toy_text")[13]
        assert row["values"] == [[4, ord("c"), 0], [6, ord("n"), 1], [2, ord("1"), 2]]
        loud = rows(encoded, "toy_audio")[9]["values"]
        assert np.shape(loud) == (5, 2)
        assert max(step[1] for step in loud) == pytest.approx(0.82, abs=0.01)

    def test_unit_files_are_gathered_and_the_footer_lists_the_units(self, encoded):
        uri = features_uri(str(encoded), resolve_features(str(encoded), "toy_text"))
        (file,) = Path(uri).glob("*.parquet")
        inside = json.loads(pq.read_schema(file).metadata[b"affuse.units"])
        assert [count for _, _, count, _ in inside] == [4, 4, 4, 4, 4, 2]
        assert len(locate(uri)) == 6

    def test_the_descriptor_and_the_config_stand_beside_the_table(self, encoded):
        (facts,) = [f for f in feature_folders(str(encoded)).values() if f["name"] == "toy_audio"]
        assert facts["manifest"] == "hash22"
        assert facts["dim"] == 2
        folder = features_uri(str(encoded), resolve_features(str(encoded), "toy_audio"))
        assert json.loads(Path(folder, "config.json").read_text())["encoders"]


class TestViews:
    @pytest.fixture(scope="class")
    def viewed(self, corpus, session, tmp_path_factory):
        """Twelve clips, of which the last unit and one more are the test split; then two views."""
        root = corpus.write_corpus(tmp_path_factory.mktemp("viewed"), 12, test={5, 8, 9, 10, 11})
        encode.main(config(root, "toy_audio", "toy_text", views=2))
        return root

    def views(self, root):
        folders = feature_folders(str(root))
        numbered = {f["view"]["number"]: name for name, f in folders.items() if "view" in f}
        return [
            sorted(
                read_features(str(root), numbered[number]).to_pylist(),
                key=lambda row: row["clip_id"],
            )
            for number in sorted(numbered)
        ]

    def test_each_view_is_a_table_of_its_own_and_text_has_none(self, viewed):
        folders = feature_folders(str(viewed))
        plain = resolve_features(str(viewed), "toy_audio")
        views = {name: f["view"] for name, f in folders.items() if "view" in f}
        assert [view["of"] for view in views.values()] == [plain, plain]
        assert len(folders) == 4

    def test_every_clip_but_those_of_the_test_split_is_seen_otherwise(self, viewed):
        plain = rows(viewed, "toy_audio")
        first, second = self.views(viewed)
        for clip, one, two in zip(plain, first, second, strict=True):
            if clip["clip_id"] in {5, 8, 9, 10, 11}:
                assert one["status"] == two["status"] == "missing"
                assert one["error"] == "no_audio: the test split has no views"
                assert not one["values"]
            else:
                assert one["status"] == two["status"] == "ok"
                assert clip["values"] != one["values"] != two["values"]

    def test_steps_are_told_in_the_time_of_the_clip(self, viewed):
        first, _ = self.views(viewed)
        ends = [row["step_start_s"][-1] for row in first if row["values"]]
        assert max(ends) < 0.56
        assert len(set(ends)) > 3

    def test_asked_for_later_they_are_the_same_and_nothing_else_is_done_again(
        self, viewed, corpus, session, tmp_path
    ):
        corpus.write_corpus(tmp_path, 12, test={5, 8, 9, 10, 11})
        encode.main(config(tmp_path, "toy_audio"))
        folder = Path(features_uri(str(tmp_path), resolve_features(str(tmp_path), "toy_audio")))
        (before,) = folder.glob("*.parquet")
        age = before.stat().st_mtime_ns
        encode.main(config(tmp_path, "toy_audio", views=1))
        encode.main(config(tmp_path, "toy_audio", views=2))
        assert before.stat().st_mtime_ns == age
        assert self.views(tmp_path) == self.views(viewed)

    def test_views_of_text_alone_are_refused(self, corpus, tmp_path):
        corpus.write_corpus(tmp_path, 4)
        with pytest.raises(ConfigError, match="text has none"):
            encode.main(config(tmp_path, "toy_text", views=1))


class TestTheRecord:
    def test_the_command_and_what_it_measured_stand_under_the_root(self, encoded):
        (folder,) = (encoded / "encodings").iterdir()
        summary = json.loads((folder / "summary.json").read_text())
        (figures,) = summary["passes"]
        assert (figures["clips"], figures["failed"]) == (22, 0)
        assert figures["clips_per_s"] > 0
        assert {f"seconds/{name}" for name in summary["tables"]} < figures.keys()

    def test_mlflow_shows_the_job(self, corpus, session, tmp_path, monkeypatch):
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        corpus.write_corpus(tmp_path, 4)
        encode.main(config(tmp_path, "toy_text", tracking=True))
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
        (experiment,) = [e for e in client.search_experiments() if e.name == tmp_path.name]
        (run,) = client.search_runs([experiment.experiment_id])
        assert run.info.status == "FINISHED"
        assert run.data.metrics["clips"] == 4
        assert run.data.tags["affuse.manifest"] == "hash4"


class TestDoingOnlyWhatIsMissing:
    def test_the_same_command_again_does_nothing_and_says_so(self, encoded, capsys, monkeypatch):
        monkeypatch.setattr(encode, "ray_session", None)  # it would fail if it were started
        encode.main(config(encoded, "toy_text", "toy_audio"))
        assert "nothing to do: all 22 clips" in capsys.readouterr().out

    def test_added_clips_are_the_only_ones_encoded(self, corpus, session, tmp_path, capsys):
        corpus.write_corpus(tmp_path, 8)
        encode.main(config(tmp_path, "toy_text"))
        corpus.write_corpus(tmp_path, 16)
        capsys.readouterr()
        encode.main(config(tmp_path, "toy_text"))
        assert "8 of 16 clips to encode in 2 units; 8 are done" in capsys.readouterr().out
        assert [row["clip_id"] for row in rows(tmp_path, "toy_text")] == list(range(16))

    def test_a_changed_option_is_another_table_and_going_back_finds_the_old_one(
        self, corpus, session, tmp_path, capsys
    ):
        corpus.write_corpus(tmp_path, 4)
        encode.main(config(tmp_path, "toy_text"))
        before = table_files(tmp_path)
        encode.main(config(tmp_path, "toy_text:pool=mean"))
        after = table_files(tmp_path)
        assert len({path.parent for path in after}) == 2
        assert before.items() < after.items()
        capsys.readouterr()
        for text in ("toy_text", "toy_text:pool=mean"):
            encode.main(config(tmp_path, text))
            assert "nothing to do" in capsys.readouterr().out
        assert table_files(tmp_path) == after

    def test_a_further_encoder_leaves_the_first_one_alone(self, corpus, session, tmp_path):
        corpus.write_corpus(tmp_path, 4)
        encode.main(config(tmp_path, "toy_text"))
        folder = Path(features_uri(str(tmp_path), resolve_features(str(tmp_path), "toy_text")))
        before = {file.name: file.stat().st_mtime_ns for file in folder.glob("*.parquet")}
        encode.main(config(tmp_path, "toy_text", "toy_audio"))
        assert {f.name: f.stat().st_mtime_ns for f in folder.glob("*.parquet")} == before
        assert len(rows(tmp_path, "toy_audio")) == 4

    def test_what_failed_is_encoded_again_only_when_asked_for(
        self, corpus, session, tmp_path, capsys
    ):
        corpus.write_corpus(tmp_path, 12)
        sound = tmp_path / "media" / "5.wav"
        content = sound.read_bytes()
        sound.unlink()
        (tmp_path / "media" / "6.wav").unlink()
        encode.main(config(tmp_path, "toy_audio", "toy_text"))
        before, text = rows(tmp_path, "toy_audio"), raw_rows(tmp_path, "toy_text")
        assert [row["clip_id"] for row in before if row["status"] == "failed"] == [5, 6]
        sound.write_bytes(content)
        capsys.readouterr()
        encode.main(config(tmp_path, "toy_audio", "toy_text"))
        assert "nothing to do" in capsys.readouterr().out
        encode.main(config(tmp_path, "toy_audio", "toy_text", retry_failed=True))
        said = capsys.readouterr().out
        assert "2 clips with failed rows are encoded again; the other rows stay" in said
        assert "2 of 12 clips to encode in 1 units; 10 are done" in said
        assert "encode: 2 clips in" in said
        after = rows(tmp_path, "toy_audio")
        assert [row["clip_id"] for row in after if row["status"] == "failed"] == [6]
        assert [r for r in after if r["clip_id"] != 5] == [r for r in before if r["clip_id"] != 5]
        assert raw_rows(tmp_path, "toy_text") == text
        (tmp_path / "media" / "6.wav").write_bytes(content)
        encode.main(config(tmp_path, "toy_audio", retry_failed=True))
        assert [row["clip_id"] for row in raw_rows(tmp_path, "toy_audio")] == list(range(12))
        encode.main(config(tmp_path, "toy_audio", retry_failed=True))
        assert "nothing to do" in capsys.readouterr().out

    def test_a_failed_clip_that_kills_its_worker_again_leaves_the_others_as_they_are(
        self, corpus, session, tmp_path, capsys
    ):
        texts = [f"clip {i}" for i in range(8)]
        texts[2] = "CRASH"
        corpus.write_corpus(tmp_path, 8, texts=texts)
        workers = WorkersConfig(actors=1, gpus_per_actor=0)
        encode.main(config(tmp_path, "toy_text", workers=workers))
        before = raw_rows(tmp_path, "toy_text")
        encode.main(config(tmp_path, "toy_text", workers=workers, retry_failed=True))
        assert "1 of 8 clips to encode in 1 units; 7 are done" in capsys.readouterr().out
        assert raw_rows(tmp_path, "toy_text") == before
        assert [row["clip_id"] for row in before if row["status"] == "failed"] == [2]

    def test_a_moved_file_leaves_no_second_row_and_comes_back_without_work(
        self, corpus, session, tmp_path, capsys
    ):
        corpus.write_corpus(tmp_path, 12)
        encode.main(config(tmp_path, "toy_audio"))
        before = raw_rows(tmp_path, "toy_audio")
        corpus.write_corpus(tmp_path, 12, unit_size=6)  # the same clips, in other units
        encode.main(config(tmp_path, "toy_audio"))
        assert raw_rows(tmp_path, "toy_audio") == before
        corpus.write_corpus(tmp_path, 12)
        capsys.readouterr()
        encode.main(config(tmp_path, "toy_audio"))
        said = capsys.readouterr().out
        assert "3 units that had left the manifest are there again" in said
        assert "nothing to do" in said
        assert raw_rows(tmp_path, "toy_audio") == before

    def test_clips_that_left_the_manifest_are_passed_over(self, corpus, session, tmp_path):
        corpus.write_corpus(tmp_path, 8)
        encode.main(config(tmp_path, "toy_text"))
        corpus.write_corpus(tmp_path, 4)
        assert [row["clip_id"] for row in rows(tmp_path, "toy_text")] == [0, 1, 2, 3]


class TestBadClips:
    def test_faults_of_one_clip_are_its_own_rows(self, corpus, session, tmp_path):
        texts = [f"clip {i}" for i in range(12)]
        texts[2], texts[5], texts[6] = "please RAISE", None, "  "
        corpus.write_corpus(tmp_path, 12, texts=texts)
        (tmp_path / "media" / "7.wav").write_bytes(b"no sound")
        (tmp_path / "media" / "8.wav").unlink()
        encode.main(config(tmp_path, "toy_text", "toy_audio", max_failed_share=0.5))
        text, audio = rows(tmp_path, "toy_text"), rows(tmp_path, "toy_audio")
        states = {row["clip_id"]: row["status"] for row in text if row["status"] != "ok"}
        assert states == {2: "failed", 5: "missing", 6: "missing"}
        assert text[2]["error"] == "encoder: ValueError: asked to raise"
        assert {r["clip_id"] for r in audio if r["status"] == "failed"} == {2, 7, 8}
        assert audio[5]["status"] == "ok"
        assert text[2]["values"] is None

    def test_a_clip_that_kills_the_encoder_costs_one_clip(self, corpus, session, tmp_path, capsys):
        texts = [f"clip {i}" for i in range(12)]
        texts[5] = "CRASH"
        corpus.write_corpus(tmp_path, 12, texts=texts)
        encode.main(config(tmp_path, "toy_text", workers=WorkersConfig(actors=1, gpus_per_actor=0)))
        failed = [row for row in rows(tmp_path, "toy_text") if row["status"] != "ok"]
        assert [(row["clip_id"], row["error"]) for row in failed] == [
            (5, "crashed: encoding killed its process")
        ]
        assert "now clip by clip" in capsys.readouterr().out

    def test_a_worker_that_dies_once_costs_nothing(self, corpus, session, tmp_path):
        texts = [f"clip {i}" for i in range(12)]
        texts[3] = f"DIE {tmp_path / 'died'}"
        corpus.write_corpus(tmp_path, 12, texts=texts)
        encode.main(config(tmp_path, "toy_text"))
        assert (tmp_path / "died").exists()
        assert {row["status"] for row in rows(tmp_path, "toy_text")} == {"ok"}

    def test_too_many_failures_stop_the_job(self, corpus, session, tmp_path):
        corpus.write_corpus(tmp_path, 120, texts=["RAISE"] * 120, unit_size=20)
        reason = r"100 of 100 clips failed \(100%\): 100 x encoder: ValueError: asked to raise"
        with pytest.raises(TooManyFailuresError, match=reason):
            encode.main(config(tmp_path, "toy_text"))
        with pytest.raises(TooManyFailuresError, match="100 of 100 clips failed"):
            encode.main(config(tmp_path, "toy_text"))  # it does not begin anew


class TestTranscripts:
    def test_text_is_filled_in_where_the_manifest_has_none(self, corpus, session, tmp_path):
        texts = ["given text", None, None, None]
        corpus.write_corpus(tmp_path, 4, texts=texts)
        encode.main(config(tmp_path, "toy_text", transcriber="toy_ear"))
        (folder,) = Path(transcripts_uri(str(tmp_path))).iterdir()
        (file,) = folder.glob("*.parquet")
        heard = pq.read_table(file).to_pylist()
        assert [row["text"] for row in heard] == ["given text", "quiet", "quiet", "quiet"]
        assert [row["confidence"] for row in heard] == [None, 0.5, 0.5, 0.5]
        assert rows(tmp_path, "toy_text")[1]["values"][0][0] == len("quiet")

    def test_finished_transcripts_are_read_by_a_later_encoder(self, corpus, session, tmp_path):
        corpus.write_corpus(tmp_path, 8, texts=[None] * 8)
        encode.main(config(tmp_path, transcriber="toy_ear"))
        encode.main(config(tmp_path, "toy_text", transcriber="toy_ear"))
        assert {row["status"] for row in rows(tmp_path, "toy_text")} == {"ok"}

    def test_features_of_transcripts_are_another_table(self, corpus, session, tmp_path):
        corpus.write_corpus(tmp_path, 4, texts=["one", None, "three", "four"])
        encode.main(config(tmp_path, "toy_text"))
        encode.main(config(tmp_path, "toy_text", transcriber="toy_ear"))
        assert len(feature_folders(str(tmp_path))) == 2


class TestUnitsStayWhole:
    def test_on_a_made_up_gpu_every_unit_reaches_one_call_intact(self, corpus, session, tmp_path):
        corpus.write_corpus(tmp_path, 40, unit_size=4)
        encode.main(config(tmp_path, "toy_audio", workers=WorkersConfig(gpus_per_actor=1.0)))
        assert [row["clip_id"] for row in rows(tmp_path, "toy_audio")] == list(range(40))

    def test_large_units_are_neither_cut_nor_mixed(self, corpus, session, tmp_path):
        corpus.write_corpus(tmp_path, 6, unit_size=2, seconds=300.0)  # 19 MB a unit
        encode.main(config(tmp_path, "toy_audio"))
        assert [len(row["values"]) for row in rows(tmp_path, "toy_audio")] == [3000] * 6

    @pytest.mark.parametrize(
        ("count", "workers", "length"), [(5, 2, 1), (90, 2, 5), (3000, 2, 64), (320, 2, 20)]
    )
    def test_spans_are_short_for_small_sets_and_at_most_64_units(self, count, workers, length):
        spans = pipeline.cut_spans([None] * count, workers)
        assert len(spans[0]) == length
        assert sum(map(len, spans)) == count


class TestRefusals:
    def test_more_actors_than_cpus_are_refused_before_anything_starts(
        self, corpus, tmp_path, monkeypatch
    ):
        corpus.write_corpus(tmp_path, 4)
        monkeypatch.setattr(encode, "ray_session", None)
        with pytest.raises(PlanError, match=r"8 encoder actors"):
            encode.main(
                config(tmp_path, "toy_text", workers=WorkersConfig(actors=8, gpus_per_actor=0))
            )
        assert not Path(features_uri(str(tmp_path))).exists()

    @pytest.mark.parametrize(
        ("encoders", "transcriber", "said"),
        [
            (("toy_txt",), None, "did you mean 'toy_text'"),
            (("toy_text:color=red",), None, "no option 'color'"),
            (("toy_text", "toy_text"), None, "named twice"),
            (("toy_ear",), None, "--transcriber toy_ear"),
            (("toy_text",), "toy_text", "no transcriber 'toy_text'"),
        ],
    )
    def test_wrong_names_are_answered_with_what_to_type(
        self, corpus, tmp_path, encoders, transcriber, said
    ):
        corpus.write_corpus(tmp_path, 4, texts=[None] * 4)
        with pytest.raises(ConfigError, match=said):
            encode.main(config(tmp_path, *encoders, transcriber=transcriber))

    def test_no_root_and_no_encoders_are_asked_for(self):
        with pytest.raises(ConfigError, match="--root"):
            encode.Config()
        with pytest.raises(ConfigError, match="--encoders"):
            encode.Config(root="x")


def test_the_table_of_encoders_names_licence_and_size(corpus):
    table = encoder_table()
    assert "toy_audio" in table
    assert "Apache-2.0" in table
