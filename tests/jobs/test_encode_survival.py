"""Killed at any moment and started again, an encode job ends as if nothing had happened."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cluster.errors import NotPreparedError
from jobs.catalog.features import feature_folders, read_features
from jobs.catalog.layout import features_uri

TOYS = Path(__file__).parent / "toys"
ROOT = TOYS.parent.parent.parent
CLIPS = 160
HEADS = ("toy", "plan", "autotune", "encode", "wrote ", "1 of 12 clips failed")
pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def toys():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TOYS))
        import toy_corpus

        yield toy_corpus
        for name in [name for name in sys.modules if name.startswith("toy_")]:
            del sys.modules[name]


def start(root, *, sleep_s):
    """The command line of a user, with the toys registered."""
    path = os.pathsep.join([str(ROOT), str(TOYS)])
    words = ["encode", "--root", str(root), "--encoders", "toy_text", "toy_audio"]
    return subprocess.Popen(
        [
            sys.executable,
            str(TOYS / "toy_corpus.py"),
            *words,
            "--session.num-cpus",
            "2",
            "--no-tracking",
        ],
        env=os.environ | {"PYTHONPATH": path, "TOY_SLEEP_S": str(sleep_s)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(root, *, sleep_s=0.0):
    process = start(root, sleep_s=sleep_s)
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 0, output
    return output


def unit_files(root):
    return list(Path(features_uri(str(root))).glob("*/u*.parquet"))


def kill_after(root, count):
    """Start, wait for so many published files, and kill the driver."""
    process = start(root, sleep_s=0.05)
    deadline = time.monotonic() + 120
    while len(unit_files(root)) < count:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def all_rows(root):
    tables = {}
    for folder, facts in feature_folders(str(root)).items():
        rows = read_features(str(root), folder).to_pylist()
        tables[facts["name"]] = sorted(rows, key=lambda row: row["clip_id"])
    return tables


def assert_equal(came, expected):
    assert came.keys() == expected.keys()
    for name, rows in expected.items():
        assert [r["clip_id"] for r in came[name]] == [r["clip_id"] for r in rows]
        assert [r["status"] for r in came[name]] == [r["status"] for r in rows]
        for left, right in zip(came[name], rows, strict=True):
            np.testing.assert_allclose(left["values"], right["values"], rtol=1e-3)


@pytest.fixture(scope="module")
def calm(toys, tmp_path_factory):
    """The rows of a job that nobody disturbed."""
    root = tmp_path_factory.mktemp("calm")
    toys.write_corpus(root, CLIPS)
    run(root)
    return all_rows(root)


def test_kills_of_the_driver_lose_nothing_double_nothing_and_leave_no_half_written_file(
    toys, calm, tmp_path
):
    toys.write_corpus(tmp_path, CLIPS)
    kill_after(tmp_path, 6)
    files = list(Path(features_uri(str(tmp_path))).glob("*/*.parquet"))
    assert len(files) >= 6
    assert all(pq.read_table(file).num_rows == toys.UNIT for file in files)
    with pytest.raises(NotPreparedError, match="have no row"):
        all_rows(tmp_path)
    kill_after(tmp_path, 30)
    assert 30 <= len(unit_files(tmp_path)) < 2 * CLIPS / toys.UNIT
    output = run(tmp_path)
    assert f"of {CLIPS} clips to encode" in output
    assert "are done" in output
    assert_equal(all_rows(tmp_path), calm)
    assert "nothing to do" in run(tmp_path)


def test_clips_added_after_a_kill_are_encoded_with_the_rest(toys, calm, tmp_path):
    toys.write_corpus(tmp_path, CLIPS // 2)
    kill_after(tmp_path, 8)
    toys.write_corpus(tmp_path, CLIPS)
    run(tmp_path)
    assert_equal(all_rows(tmp_path), calm)


def test_a_clip_that_kills_its_workers_is_told_in_the_words_of_the_job_alone(toys, tmp_path):
    toys.write_corpus(tmp_path, 12, texts=["CRASH" if clip == 5 else "calm" for clip in range(12)])
    output = run(tmp_path)
    assert "lost with their workers (encoding killed its process 3 times)" in output
    assert "raylet" not in output
    assert all(line.startswith(HEADS) for line in output.splitlines()), output
