"""Ctrl-C is obeyed by every job at any moment, as are SIGTERM of schedulers and a terminal that is gone.

One line, status 130 (143, 129), nothing left running, no traceback.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from jobs import ensemble, train

ROOT = Path(__file__).resolve().parents[2]
TOYS = ROOT / "tests" / "jobs" / "toys"
pytestmark = [pytest.mark.slow, pytest.mark.ray]

OBEYED_S = 3.0
SLACK_S = 9.0
"""For a machine that does other things."""


def environment(**more):
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    path = os.pathsep.join(map(str, (ROOT, TOYS)))
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "PYTHONPATH": path, **more}


@pytest.fixture(autouse=True)
def terminal():
    """Signals as a shell leaves them to what it starts: under nohup a lost terminal is switched off."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="module")
def small(write_root, tmp_path_factory):
    """A root with features, two runs and a bundle, and a file of further features."""
    folder = tmp_path_factory.mktemp("interrupt")
    root = str(folder / "r")
    write_root(root)
    for name in ("voice", "face"):
        train.main(
            train.Config(
                root=root, inputs=(name,), tasks=("emotion",), net_options={"hidden": 8},
                epochs=2, pool="mean", run=name, folds="speaker", tracking=False,
            )
        )  # fmt: skip
    ensemble.main(ensemble.Config(root=root, runs=("voice", "face"), task="emotion", resamples=100))
    names = np.array([f"clip{number}" for number in range(72)])
    np.savez(folder / "x.npz", x=np.ones((72, 3), "f4"), name=names)
    return folder


@pytest.fixture
def sounds(toys, tmp_path):
    """Sounds of toy encoders that take their time, as files and as a dataset with a bundle."""
    toys.corpus.write_corpus(tmp_path / "r", 200, seconds=0.1)
    toys.bundle.write_bundle(tmp_path / "r")
    return tmp_path


@pytest.fixture
def many(tmp_path):
    """More sounds than are looked into in a few seconds."""
    (tmp_path / "clips").mkdir()
    one = tmp_path / "clips" / "0.wav"
    soundfile.write(one, np.zeros(800, np.float32), 8000)
    for number in range(1, 6000):
        os.link(one, one.with_name(f"{number}.wav"))
    return tmp_path


def group_of(leader):
    """Processes of a session of the system that still run."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(process.name)) != leader:
                continue
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, ValueError):
            continue
        if state != "Z":
            found.append(int(process.name))
    return found


@dataclass(frozen=True)
class Case:
    """A command, and where it is when Ctrl-C comes."""

    folder: str
    """The fixture that makes what it reads, and is where it is typed."""

    words: str

    begun: Callable[[Path, int, str], object]
    """Of the folder, the process id and what was said: whether it is there."""

    pause_s: float = 0.0
    is_toy: bool = False
    may_end: bool = False
    """It may be done before Ctrl-C comes."""

    stop: signal.Signals = signal.SIGINT


def holds(pattern):
    """A file of this pattern is there."""
    return lambda folder, process, said: next(folder.glob(pattern), None)


def says(text):
    """It has said this."""
    return lambda folder, process, said: text in said


def listens(folder, process, said):
    """Its second thread is there, which waits for Ctrl-C; hardly anything has been imported."""
    return len(os.listdir(f"/proc/{process}/task")) > 1


TRAIN = "--root r --inputs voice --tasks emotion --folds speaker --no-tracking"
ENSEMBLE = "ensemble --root r --runs voice face --task emotion --bundle e --resamples 500000"
EVALUATE = "evaluate --root r --bundle ensemble --resamples 500000"
IMPORT = "features import --root r --file x.npz --name x --modality audio --array x"
SESSION = "--session.num-cpus 2 --session.num-gpus 0"
ENCODE = f"encode --root r --encoders toy_text toy_audio --no-tracking {SESSION}"
LONG = f"train {TRAIN} --epochs 100000 --patience 100000 --run t"
CASES = {
    "encode": Case("sounds", ENCODE, holds("r/features/*/u*.parquet"), is_toy=True),
    "encode by SIGHUP": Case(
        "sounds", ENCODE, holds("r/features/*/u*.parquet"), is_toy=True, stop=signal.SIGHUP
    ),
    "score": Case(
        "sounds",
        f"score --root r --bundle b --source clips {SESSION}",
        holds("r/scores/b/**/*.parquet"),
        is_toy=True,
    ),
    "prepare": Case(
        "many", "prepare folder --source clips --root r --workers 2", holds("r/probes/*.parquet")
    ),
    "train by SIGTERM": Case("small", LONG, says("run t"), 3, stop=signal.SIGTERM),
    "workers of train by SIGTERM": Case(
        "small", f"{LONG}w --workers 2", holds("r/runs/tw/**/checkpoint.pt"), 1, stop=signal.SIGTERM
    ),
    "tune": Case(
        "small", f"tune {TRAIN} --trials 5000 --run u --session.num-cpus 1", says("trial "), 3
    ),
    "ensemble at its start": Case("small", ENSEMBLE, listens),
    "ensemble": Case("small", ENSEMBLE, listens, 5, may_end=True),
    "evaluate at its start": Case("small", EVALUATE, listens, 0.3),
    "evaluate": Case("small", EVALUATE, listens, 5, may_end=True),
    "report at its start": Case("small", "report --root r --bundle ensemble", listens, 0.1),
    "report": Case("small", "report --root r --bundle ensemble", listens, 3, may_end=True),
    "features at its start": Case("small", IMPORT, listens, 0.2),
    "features": Case("small", IMPORT, listens, 1, may_end=True),
}


@pytest.mark.parametrize("case", CASES.values(), ids=[name.replace(" ", "_") for name in CASES])
def test_a_signal_ends_a_job_in_one_line_and_leaves_nothing_running(case, request):
    folder = request.getfixturevalue(case.folder)
    started = [str(TOYS / "toy_corpus.py")] if case.is_toy else ["-m", "jobs"]
    words = case.words.split()
    with (folder / "said").open("w") as said, (folder / "complained").open("w") as complained:
        process = subprocess.Popen(
            [sys.executable, *started, *words],
            cwd=folder, env=environment(TOY_SLEEP_S="0.1"), stdout=said, stderr=complained,
            start_new_session=True,
        )  # fmt: skip
    try:
        while not case.begun(folder, process.pid, (folder / "said").read_text()):
            assert process.poll() is None, (folder / "complained").read_text()
            time.sleep(0.01)
        time.sleep(case.pause_s)
        began = time.monotonic()
        if process.poll() is None:
            os.killpg(process.pid, case.stop)
        status = process.wait(timeout=60)
        took_s = time.monotonic() - began
        errors = (folder / "complained").read_text()
        # Done, and Python's own end in between: there is nothing left to stop, nor to say.
        is_done = status == 0 or (status == -case.stop and not errors)
        if not (case.may_end and is_done):
            assert status == 128 + case.stop, errors
            assert errors == f"affuse {words[0]}: stopped; the same command goes on from here\n"
        assert took_s < OBEYED_S + SLACK_S
        deadline = time.monotonic() + 10
        while group_of(process.pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not group_of(process.pid)
    finally:
        for left in group_of(process.pid):
            os.kill(left, signal.SIGKILL)
