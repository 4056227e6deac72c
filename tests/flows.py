"""Which files one clip goes through: `python tests/flows.py encode|train|score`.

A file is on the path of a clip where one of its functions is handed the clip, or hands it on: its row, its
source, its sound, its features or its predictions. Files that run and are handed nothing of it (deadlines,
memory figures, names of folders, errors) are printed as beside the path.

encode  from a row of the manifest to a row of features, in the decode task, its child and the encoder actor
train   from a row of a feature table to a row of predictions, in a worker
score   from a media file to a row of scores, in one process

The flows run here, in one process and in earnest, under a profiler; nothing is read off the source. A clip
goes the same way before, so that what happens once a process (imports, models, versions) is not seen; what a
command does once, whatever its clips are (its config, its plan, its session, compaction), is not either. The
clip is a WAV file, the encoder one without weights: each other modality adds its readers in
`encoders/decoding` and each encoder its own file.
"""

import contextlib
import importlib
import io
import json
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("cluster", "encoders", "fusion", "jobs")
ENCODER = "logmel_stats"

sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "jobs"), str(ROOT / "tests" / "jobs" / "toys")]


@dataclass
class Trace:
    """The project's files that ran, in the order in which they were first met."""

    files: dict[str, bool] = field(default_factory=dict)
    """File -> whether it was handed the clip."""

    def on_path(self) -> list[str]:
        return [file for file, handed in self.files.items() if handed]

    def beside(self) -> list[str]:
        return [file for file, handed in self.files.items() if not handed]


@contextlib.contextmanager
def traced() -> Iterator[Trace]:
    """What runs meanwhile, here and in threads that begin meanwhile."""
    trace = Trace()

    def seen(frame: FrameType, event: str, returned: Any) -> None:
        # Generated methods of dataclasses have no file, but the globals of their module.
        module = frame.f_globals.get("__name__", "")
        inside = module.partition(".")[0] in PACKAGES and frame.f_code.co_name != "<module>"
        if not inside or event not in ("call", "return"):
            return
        file = str(Path(frame.f_globals.get("__file__") or module).relative_to(ROOT))
        if not trace.files.setdefault(file, False):
            code = frame.f_code
            names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            values = [frame.f_locals.get(name) for name in names] if event == "call" else [returned]
            trace.files[file] = any(map(is_clips, values))

    threading.setprofile(seen)
    sys.setprofile(seen)
    try:
        yield trace
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def is_clips(value: Any, depth: int = 2) -> bool:
    """Whether a value is something of a clip, or a collection that begins with such.

    Arrays of integers and flags only point at clips.
    """
    import numpy as np
    import pyarrow as pa
    import torch

    from encoders.clip import Clip, Encoded, Frames
    from encoders.media import ClipSource, Decoded, Source

    if isinstance(value, np.ndarray):
        return value.dtype.kind in "fu"
    if isinstance(value, torch.Tensor):
        return value.is_floating_point()
    columns = (pa.Table, pa.RecordBatch, pa.Array, pa.ChunkedArray, pa.Buffer)
    if isinstance(value, (*columns, Clip, ClipSource, Decoded, Encoded, Frames, Source)):
        return True
    if isinstance(value, Mapping):
        if "clip_id" in value:
            return True
        value = list(value.values())
    several = isinstance(value, list | tuple) and depth
    return bool(several) and any(is_clips(each, depth - 1) for each in value[:4])


def in_this_process() -> type:
    """A decoder child that answers here, where it is traced; its messages are JSON all the same."""
    from cluster import scratch
    from encoders.decoding import child, process

    class Here(process.Child):
        def __init__(self, _memory_bytes: int, threads: int, max_bytes: int) -> None:
            self.served, self._threads, self._max_bytes = 0, threads, max_bytes
            self._shared = scratch.anonymous_file()
            self.process = SimpleNamespace(poll=lambda: None)

        def ask(self, request: Any, limit_s: float) -> Any:
            shared = child.Shared(self._shared.fileno())
            plain = json.loads(json.dumps(request))
            answer = child.serve(plain, shared, self._threads, self._max_bytes)
            return json.loads(json.dumps(answer))

        def close(self) -> None:
            self._shared.close()

    return Here


def corpus(folder: str) -> list[str]:
    """Two sounds, each a unit of a manifest; their paths."""
    importlib.import_module("toy_corpus").write_corpus(folder, 2, unit_size=1)
    return [f"{folder}/media/{number}.wav" for number in range(2)]


def encode(folder: str) -> Trace:
    """The second of two clips; the first one has warmed everything up."""
    from jobs.catalog.manifest import units
    from jobs.stream import actor, tries
    from jobs.stream.decode import decode_span
    from jobs.stream.job import DecodingConfig, StreamJob, UnitTask
    from jobs.stream.rows import span_row
    from jobs.stream.selection import chosen_work
    from jobs.stream.sink import FeatureSink

    actor.worker_device = lambda: "cpu"  # Ray, which would be asked, is not there
    tries.Tries.begin = tries.Tries.end = lambda *_: None  # nor is its store
    corpus(folder)
    work = chosen_work(folder, [ENCODER], None, f"{folder}/store")
    job = StreamJob(root=folder, work=work, decoding=DecodingConfig(), sink=FeatureSink())
    spans = [span_row([UnitTask(ref=ref, todo=work.everything)]) for ref in units(folder)]
    for span in spans:
        worker = actor.UnitEncoder(job, tries.Tries())
        with traced() as trace:
            for row in decode_span(span, job, tries.Tries()):
                worker(row)
    return trace


def train(folder: str) -> Trace:
    """All clips of a small dataset, a second time under another name."""
    from jobs.train import Config
    from jobs.training import workers
    from jobs.training.run import claim, resolved

    root = importlib.import_module("small_root").write_root(folder)
    for run in ("once", "again"):
        config = resolved(
            Config(
                root=root,
                run=run,
                inputs=("voice",),
                tasks=("emotion",),
                epochs=1,
                workers=0,
                tracking=False,
            )
        )
        own = claim(config)
        with traced() as trace:
            workers.train_all(config, own)
    return trace


def score(folder: str) -> Trace:
    """The second of two files; the first one has warmed everything up."""
    from encoders.registry import describe
    from jobs.score import Config, work_of
    from jobs.scoring.in_process import OneByOne, score_here
    from jobs.scoring.opening import open_bundle
    from jobs.scoring.scorer import Scorer

    toys = importlib.import_module("toy_bundle")
    toys.write_bundle(folder, text=None, sound=toys.source(ENCODER), width=describe(ENCODER).dim)
    config = Config(clips=tuple(corpus(folder)), root=folder, bundle="b", store=f"{folder}/store")
    bundle = open_bundle("b", folder)
    scorer = Scorer(bundle, folder)
    for clip in config.clips:
        encoder = OneByOne(work_of(config, bundle), config.decoding, config.stall_limit_s)
        encoder.load()
        with traced() as trace:
            table = score_here([clip], encoder, scorer)
        assert table["status"].to_pylist() == ["ok"]
    return trace


FLOWS: dict[str, tuple[Callable[[str], Trace], int]] = {
    "encode": (encode, 22),
    "train": (train, 22),
    "score": (score, 30),
}
"""Flow -> how it is run, and the most files that it may go through."""


def flow(name: str) -> Trace:
    """What one clip goes through."""
    from encoders import media

    run, _ = FLOWS[name]
    child = media.Child
    media.Child = in_this_process()
    try:
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
            return run(folder)
    finally:
        media.Child = child


if __name__ == "__main__":
    if sys.argv[1:] not in [[name] for name in FLOWS]:
        sys.exit(f"usage: python tests/flows.py {'|'.join(FLOWS)}")
    found = flow(sys.argv[1])
    print("\n".join(found.on_path()))
    print(f"{len(found.on_path())} files; the limit is {FLOWS[sys.argv[1]][1]}\n")
    print("beside the path:", *found.beside(), sep="\n")
