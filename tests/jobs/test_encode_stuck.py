"""A clip that hangs an encoder or spoils its device costs itself; what the machine does costs no clip."""

import importlib
import shutil
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster import storage
from cluster.resources import WorkersConfig
from cluster.session import SessionConfig, ray_session
from cluster.tables import MANIFEST
from jobs.__main__ import run
from jobs.catalog.features import read_features, resolve_features
from jobs.catalog.layout import features_uri
from jobs.encode import Config, main
from jobs.score import read_scores
from jobs.stream import pipeline
from jobs.stream.job import DecodingConfig

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def corpus(toys):
    """A Ray whose workers know the toys."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_metrics_report_interval_ms", "1000")
        with ray_session(SessionConfig(num_cpus=2, num_gpus=0)):
            yield toys.corpus


def encode(root, *flags):
    """The exit status of the command line."""
    words = ["encode", "--root", str(root), "--encoders", "toy_text", "--no-tracking"]
    words += ["--session.num-cpus", "2", "--session.num-gpus", "0", "--workers.gpus-per-actor", "0"]
    return run([*words, *flags])


def states(root):
    """What became of each clip, in their order."""
    table = read_features(str(root), resolve_features(str(root), "toy_text"))
    rows = sorted(table.to_pylist(), key=lambda row: row["clip_id"])
    assert [row["clip_id"] for row in rows] == list(range(len(rows)))
    return [row["error"] or row["status"] for row in rows]


def score(root, *flags):
    """The exit status of the command line."""
    words = ["score", "--root", str(root), "--bundle", "b", "--source", "clips"]
    words += ["--session.num-cpus", "2", "--session.num-gpus", "0", "--workers.gpus-per-actor", "0"]
    return run([*words, *flags])


def texts_of(count, **strange):
    return [strange.get(f"c{number}", f"clip number {number}") for number in range(count)]


STRANGE = {
    0: ("SPOIL odd", "encoder: RuntimeError: odd"),
    9: ("HANG", "timeout: encoding took longer than"),
    17: ("SPOIL CUDA error: device-side assert", "encoder: RuntimeError: CUDA error: device-side"),
    25: ("SPOIL it is just odd", "encoder: RuntimeError: it is just odd"),
    34: ("MEMORY", "too_large: MemoryError: asked to be full"),
    38: ("FULL", "machine: OSError: [Errno 28] No space left on device"),
}


class TestClipsThatDoMoreThanFail:
    @pytest.fixture(scope="class")
    def strange(self, corpus, tmp_path_factory):
        """The states of 44 clips, of which some do all that a clip can do to an encoder."""
        texts = texts_of(44, **{f"c{number}": text for number, (text, _) in STRANGE.items()})
        root = corpus.write_corpus(tmp_path_factory.mktemp("strange"), 44, texts=texts)
        assert encode(root, "--stall-limit-s", "4") == 0
        return states(root)

    @pytest.mark.parametrize("clip", STRANGE)
    def test_what_it_did_is_said_in_its_row(self, strange, clip):
        assert strange[clip].startswith(STRANGE[clip][1])

    def test_all_others_are_encoded_and_the_job_goes_to_its_end_by_itself(self, strange):
        left = [state for number, state in enumerate(strange) if number not in STRANGE]
        assert left == ["ok"] * 38

    def test_native_code_that_keeps_the_interpreter_to_itself_is_ended_too(self, corpus, tmp_path):
        corpus.write_corpus(tmp_path, 8, texts=texts_of(8, c5="HOLD"))
        assert encode(tmp_path, "--stall-limit-s", "2", "--workers.actors", "1") == 0
        came = states(tmp_path)
        assert came.pop(5).partition(":")[0] in ("timeout", "crashed")
        assert set(came) == {"ok"}

    def test_scores_of_raw_clips_go_to_their_end_too(self, toys, corpus, tmp_path):
        texts = texts_of(16, c5="HANG", c11="SPOIL CUDA error: device-side assert")
        corpus.write_corpus(tmp_path, 16, texts=texts)
        toys.bundle.write_bundle(tmp_path)
        assert score(tmp_path, "--stall-limit-s", "4") == 0
        rows = {row["clip_id"]: row for row in read_scores(str(tmp_path), "b").to_pylist()}
        assert sorted(rows) == list(range(16))
        assert {number for number, row in rows.items() if row["status"] != "ok"} == {5, 11}
        assert "timeout: encoding took longer than" in rows[5]["error"]
        assert "CUDA error: device-side assert" in rows[11]["error"]


class TestSlowClips:
    def test_units_of_them_are_not_taken_for_a_hang(self, corpus, tmp_path, capsys, sound):
        corpus.write_corpus(tmp_path, 16, texts=["SLEEP 2.0"] * 16, unit_size=8)
        with sound():
            assert encode(tmp_path, "--stall-limit-s", "5") == 0
        assert set(states(tmp_path)) == {"ok"}
        assert "clip by clip" not in capsys.readouterr().out

    def test_a_stream_that_was_given_up_is_gone_on_with(
        self, corpus, tmp_path, monkeypatch, capsys
    ):
        monkeypatch.setattr(pipeline, "quiet_limit_s", lambda job, tasks: 8.0)
        corpus.write_corpus(tmp_path, 8, texts=["SLEEP 4.0"] * 8, unit_size=4)
        assert encode(tmp_path) == 0
        assert set(states(tmp_path)) == {"ok"}
        assert "no worker moved for 8 s" in capsys.readouterr().out


class TestDecodeTasksThatDie:
    def test_a_unit_that_kills_its_decode_task_each_time_is_done_clip_by_clip(
        self, corpus, tmp_path, capsys
    ):
        poison = importlib.import_module("toy_poison")
        corpus.write_corpus(tmp_path, 24)
        (file,) = tmp_path.glob("manifest/*/*.parquet")
        rows = pq.read_table(file).to_pylist()
        rows[9]["duration_s"] = poison.LENGTH_S
        table = MANIFEST.conform(pa.Table.from_pylist(rows, MANIFEST.schema))
        storage.publish_table(table, str(file), row_group_size=corpus.UNIT)
        config = Config(
            root=str(tmp_path),
            encoders=("toy_text",),
            tracking=False,
            workers=WorkersConfig(gpus_per_actor=0),
            decoding=DecodingConfig(time_limit_per_s=poison.Deadly(4.0)),
            session=SessionConfig(num_cpus=2, num_gpus=0),
        )
        main(config)
        assert set(states(tmp_path)) == {"ok"}
        said = capsys.readouterr().out
        assert "1 units were lost with their workers (decoding killed its process 3 times)" in said


class TestMachinesThatFail:
    @pytest.mark.parametrize("fault", ["MEMORY", "FULL"])
    def test_one_line_ends_the_job_and_no_clip_is_blamed(self, corpus, tmp_path, capsys, fault):
        texts = [f"clip {number}" if number < 8 else fault for number in range(200)]
        corpus.write_corpus(tmp_path, 200, texts=texts)
        assert encode(tmp_path, "--max-failed-share", "1") == 1
        said = capsys.readouterr().err
        assert "affuse encode: no clip passes any more" in said
        assert "of 50 units are done; mend that and type the same command" in said
        assert "Traceback" not in said
        folder = Path(features_uri(str(tmp_path), resolve_features(str(tmp_path), "toy_text")))
        assert len(list(folder.glob("u*.parquet"))) <= 2

    def test_a_full_disk_is_said_at_once_and_the_same_command_goes_on(self, corpus, disk, capsys):
        corpus.write_corpus(disk, 80)
        filler = disk / "filler"
        free = shutil.disk_usage(disk).free
        filler.write_bytes(b"\0" * (free - 60_000))
        assert encode(disk) == 1
        said = capsys.readouterr()
        (line,) = [line for line in said.err.splitlines() if line.startswith("affuse encode:")]
        assert line.startswith("affuse encode: the disk is full at ")
        assert line.endswith(
            "units are done; mend that and type the same command, which goes on from there"
        )
        assert "Traceback" not in said.err + said.out
        assert "clip by clip" not in said.out
        assert not list(disk.rglob("*.tmp"))
        filler.unlink()
        assert encode(disk) == 0
        assert states(disk) == ["ok"] * 80


@pytest.fixture
def disk(tmp_path):
    """A disk of 2 MB."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(tmp_path)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small disk can be mounted only as root")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)
