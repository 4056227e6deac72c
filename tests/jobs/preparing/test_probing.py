"""Looking into files: a kill loses the last few, Ctrl-C waits for none, two jobs keep what both found."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import wave
from collections import Counter
from functools import partial

import numpy as np
import pytest

from cluster import storage
from encoders.decoding.process import AHEAD
from encoders.media import Probe
from jobs.catalog.manifest import read_manifest
from jobs.preparing import probing

SOUND = Probe(
    duration_s=1.0, has_video=False, has_audio=True, fps=None, width=None, height=None,
    rotation=0, video_codec=None, audio_codec="pcm_s16le", rate_hz=8000, channels=1,
)  # fmt: skip

SCRIPT = """
import contextlib, os, signal, sys, time
from encoders.decoding.process import Child
from jobs.preparing import probing
from jobs.__main__ import main

send = Child._send

def stopped(child, request):
    if request["video"][0].endswith("hangs.wav"):
        os.kill(child.process.pid, signal.SIGSTOP)
    return send(child, request)

Child._send = stopped

probing.PIECE = int(os.environ["PIECE"])
if log := os.environ.get("LOG"):
    from tests_probe import SOUND

    @contextlib.contextmanager
    def looking():
        def look(source):
            with open(log, "a") as file:
                file.write(source.uri + "\\n")
            time.sleep(0.02)
            return SOUND
        yield lambda sources: map(look, sources)

    probing._looking = looking
main(sys.argv[1:])
"""


def prepare(tmp_path, *, piece, log=None):
    """`affuse prepare folder` in a process of its own."""
    (tmp_path / "tests_probe.py").write_text(
        f"from encoders.media import Probe\nSOUND = {SOUND!r}\n"
    )
    command = ["prepare", "folder", "--source", str(tmp_path / "clips"), "--workers", "2"]
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *command, "--root", str(tmp_path / "root")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": f"{os.getcwd()}:{tmp_path}",
            "PIECE": str(piece),
            "LOG": str(log or ""),
        },
    )


def until(condition, limit_s=120.0):
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def lines(log):
    return log.read_text().splitlines() if log.exists() else []


def write_sounds(folder, names):
    folder.mkdir()
    for name in names:
        with wave.open(str(folder / f"{name}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(np.zeros(800, np.int16).tobytes())


class TestAPrepareThatIsKilled:
    def test_goes_on_where_it_was_and_ends_like_an_undisturbed_one(self, tmp_path):
        count, piece, log = 90, 5, tmp_path / "log"
        (tmp_path / "clips").mkdir()
        for number in range(count):
            (tmp_path / "clips" / f"c{number}.wav").write_bytes(b"x")
        pieces, kept = tmp_path / "root" / "probes", Counter()
        for part in (1, 2):
            process = prepare(tmp_path, piece=piece, log=log)
            until(lambda part=part: len(list(pieces.glob("*.parquet"))) >= 2 * part)
            process.kill()
            process.communicate()
            before = Counter(lines(log))
            for name in probing.read_probes(str(tmp_path / "root")):
                kept.setdefault(json.loads(name)[0], before[json.loads(name)[0]])
        assert prepare(tmp_path, piece=piece, log=log).wait(120) == 0
        looks = Counter(lines(log))
        assert len(looks) == count
        assert len(kept) >= 4 * piece
        # What was kept at a kill is never looked at again.
        assert {name: looks[name] for name in kept} == kept
        table = read_manifest(str(tmp_path / "root"), ["clip_id", "duration_s"])
        assert table.num_rows == count
        assert set(table["duration_s"].to_pylist()) == {1.0}
        assert not storage.names(str(tmp_path / "root" / "probes"))
        assert prepare(tmp_path, piece=piece, log=log).wait(120) == 0
        assert Counter(lines(log)) == looks

    def test_keeps_what_it_has_when_it_is_stopped_by_the_keyboard(self, tmp_path):
        def stopped():
            with probing._kept(str(tmp_path)) as keep:
                keep("a", SOUND)
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            stopped()
        assert probing.read_probes(str(tmp_path)) == {"a": SOUND}

    def test_two_jobs_on_one_root_lose_no_probe_of_each_other(self, tmp_path):
        root = str(tmp_path)
        for name in ("a", "b", "c"):
            with probing._kept(root) as keep:
                keep(name, SOUND)
        known = probing.read_probes(root)
        with probing._kept(root) as keep:
            keep("d", SOUND)  # of another job, since then
        probing.gather_probes({"a": SOUND}, known, root)
        assert set(probing.read_probes(root)) == {"a", "b", "c", "d"}
        assert not storage.names(storage.join(root, "probes"))


class TestCtrlC:
    def test_is_obeyed_while_a_file_hangs_and_loses_nothing(self, tmp_path):
        # Those that the stopped process has in hand wait behind the one that hangs.
        write_sounds(tmp_path / "clips", ["hangs", *map(str, range(12 + AHEAD))])
        process = prepare(tmp_path, piece=1)
        pieces = tmp_path / "root" / "probes"
        until(lambda: pieces.exists() and len(list(pieces.glob("*.parquet"))) >= 12)
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        try:
            _, said = process.communicate(timeout=30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        assert process.returncode == 130
        assert "the same command goes on from here" in said
        assert "Traceback" not in said
        # A decoder gives the file up after a minute; nobody waited for that.
        assert time.monotonic() - begun < 30
        assert len(probing.read_probes(str(tmp_path / "root"))) >= 12


def test_an_error_of_ours_ends_the_work_and_is_raised():
    def act(item):
        if item == 3:
            raise ZeroDivisionError
        return item

    def in_threads(act, items, workers):
        return probing._in_threads(
            lambda: contextlib.nullcontext(partial(map, act)), items, workers
        )

    with pytest.raises(ZeroDivisionError):
        list(in_threads(act, range(9), 2))
    assert dict(in_threads(abs, [-1, -2, 0], 7)) == {0: 1, 1: 2, 2: 0}
    assert list(in_threads(abs, [], 2)) == []
