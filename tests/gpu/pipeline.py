"""Parts `decode` and `encode`: clips that the script films, decoded on all cores and encoded by three models.

The whole job is measured twice: as threads around the decoder, the models and the tables; and, where Ray can
be imported, as the stream of `affuse encode`.
"""

import importlib
import queue
import shutil
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.gpu import card_decoder, sizes
from tests.gpu.commands import affuse
from tests.gpu.machine import Busy, cores

STACK = ("bert_base", "wav2vec2_base", "timesformer")
"""Words, voice and pictures; of `encode`."""

FILMS = {"720p": (1280, 720), "1080p": (1920, 1080)}
SMALL_FILM = {"180p": (320, 180)}
FPS, RATE_HZ = 25, 16_000
UNIT = {False: 8, True: 2}
"""Clips that travel together, by whether they are small."""

COPIES = {False: 256, True: 16}
"""Clips of `encode`, by whether they are small."""


def film(path, size, seconds):
    """One clip: blocks that wander over noise, and a tone that sways."""
    import av

    width, height = size
    draws = np.random.default_rng(0)
    still = draws.integers(0, 80, (height, width, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = container.add_stream("aac", rate=RATE_HZ, layout="mono")
        for number in range(round(seconds * FPS)):
            pixels = still.copy()
            left = (7 * number) % (width // 2)
            pixels[height // 4 : height // 2, left : left + width // 4] += 100
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode(None))
        at = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
        tone = (8000 * np.sin(2 * np.pi * (180 + 20 * np.sin(at)) * at)).astype(np.int16)
        for start in range(0, len(tone), 1024):
            frame = av.AudioFrame.from_ndarray(tone[None, start : start + 1024], "s16", "mono")
            frame.sample_rate, frame.pts = RATE_HZ, start
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))


def films(task):
    """Size -> a clip of it, filmed once for both parts."""
    found = {}
    for name, size in (SMALL_FILM if task.small else FILMS).items():
        found[name] = task.work / f"{name}.mp4"
        if not found[name].exists():
            draft = task.work / f"draft-{name}.mp4"
            film(draft, size, 1.0 if task.small else sizes.CLIP_S)
            draft.rename(found[name])
    return found


def row_of(number, path, seconds):
    """A clip as the manifest has it."""
    source = {"uri": str(path), "offset": None, "size": None}
    return {
        "clip_id": number, "video": source, "audio": source, "text": "so funny what a day the door is open",
        "words": None, "start_s": None, "end_s": None, "duration_s": seconds, "split": None,
    }  # fmt: skip


def stack_of(task):
    """The models of `encode` as a job has them, in folders that this made."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "encoders" / "tiny"))
    import tiny_models

    from encoders.registry import describe

    found = []
    for name in STACK:
        folder = task.work / "models" / name
        if not folder.exists():
            draft = Path(tempfile.mkdtemp(dir=task.work))
            tiny_models.BUILDERS[name](draft)  # its tokenizer and preprocessor serve every size
            if not task.small:
                sizes.build(name, small=False, device="cpu")[1].save_pretrained(draft)
            folder.parent.mkdir(exist_ok=True)
            draft.rename(folder)
        size = ",dim=32,depth=2" if task.small else ""
        found.append(describe(f"{name}:weights=file://{folder},pool=mean{size}"))
    return tuple(found)


def measure_decode(task, say):
    """Clips a second that all cores decode, of each size of film; and the card where it can."""
    from encoders.clip import FramePolicy, Needs

    even, dense = FramePolicy(kind="even"), FramePolicy(kind="fps", rate_hz=25.0)
    for name, path in films(task).items():
        for title, policy in (("8 frames", even), ("all frames", dense)):
            needs = Needs(rates_hz=frozenset([RATE_HZ]), frames=frozenset([policy]))
            share_s = min(task.left_s / 6, 1.0 if task.small else 12.0)
            say.attempt(
                f"{name}, {title}",
                lambda path=path, needs=needs, share_s=share_s: decode_rate(path, needs, share_s),
            )
        title = f"{name}, all frames, on the card"
        say.attempt(
            title,
            lambda path=path, share_s=share_s: card_decoder.figures(path, dense, task, share_s),
        )


def decode_rate(path, needs, budget_s):
    """Clips a second on all cores; the children's start is not counted."""
    from encoders.media import ClipSource, Decoder, Source

    source = ClipSource(clip_id=0, video=Source(str(path)), audio=Source(str(path)))
    ready, counts = threading.Barrier(cores()), []

    def work():
        with Decoder() as decoder:
            try:
                found = decoder.decode(source, needs)
                fault = next(iter(found.faults.values()), None)
                ready.wait(60)
            except BaseException:
                ready.abort()
                raise
            if fault is not None:
                raise fault
            begun, count = time.monotonic(), 0
            while time.monotonic() - begun < budget_s:
                decoder.decode(source, needs)
                count += 1
            counts.append(count / (time.monotonic() - begun))

    with ThreadPoolExecutor(cores()) as threads:
        for future in [threads.submit(work) for _ in range(cores())]:
            future.result()
    return {"clips_per_s": round(sum(counts), 2), "cores": cores()}


def measure_encode(task, say):
    """The whole job without Ray and with it."""
    stack = stack_of(task)
    path = next(iter(films(task).values()))
    alone = {}
    say.attempt("without Ray", lambda: without_ray(task, stack, path, alone))
    if with_both(task):
        say.attempt("with Ray", lambda: with_ray(task, stack, path, alone))
    else:
        say("with Ray", error="Ray cannot be imported here, or was not to be used")


def with_both(task):
    """Whether the stream is measured too: Ray is wanted, and can be imported."""
    if not task.ray:
        return False
    try:
        importlib.import_module("ray")
    except ImportError:
        return False
    return True


def without_ray(task, stack, path, alone):
    """Decode alone, models alone, and both with tables on disk, in threads of one process.

    `alone` gets the first two [clips/s].
    """
    from jobs.stream.decode import decode_rows
    from jobs.stream.job import Work
    from jobs.stream.workbench import Workbench

    seconds = 1.0 if task.small else sizes.CLIP_S
    work = Work(descriptors=stack, transcriber=None, store=str(task.work))
    unit = UNIT[task.small]
    rows = [row_of(number, path, seconds) for number in range(COPIES[task.small])]
    units = [rows[start : start + unit] for start in range(0, len(rows), unit)]
    todo, bench = work.everything, Workbench(work, device=task.device)
    budget_s = (0.4 if with_both(task) else 0.9) * task.left_s / 5
    budget_s = min(budget_s, 1.5) if task.small else budget_s
    many = units * 1000

    def decoded(decoder, unit):
        return decode_rows(work, todo, unit, decoder)

    def encoded(unit):
        return bench.run(unit, todo)

    some = Line(decoded, lambda unit: unit, readers=cores(), takers=1).run(units[:4])
    encoded(some.results[0])  # the first call sets up
    decode = Line(decoded, lambda unit: None, readers=cores(), takers=1).run(many, budget_s)
    takers = 4 if task.device == "cuda" else 1
    models = Line(lambda _, unit: unit, encoded, readers=1, takers=takers)
    models = models.run(some.results * 1000, budget_s)
    alone |= {"decode": decode.rate, "models": models.rate}
    with tempfile.TemporaryDirectory(dir=task.work) as folder, Busy(task.device) as busy:

        def published(unit):
            publish(folder, encoded(unit))

        whole = Line(decoded, published, readers=cores(), takers=takers).run(many, 2 * budget_s)
    return rates(task, decode.rate, models.rate, whole.rate) | busy.facts() | {"stack": list(STACK)}


def rates(task, decode, models, whole):
    """The rates, and the whole over what its parts allow: on a card they run beside each other."""
    ideal = min(decode, models) if task.device == "cuda" else 1 / (1 / decode + 1 / models)
    found = {"decode": decode, "models": models, "whole": whole}
    found = {f"{name}_clips_per_s": round(rate, 2) for name, rate in found.items()}
    return {**found, "efficiency": round(whole / ideal, 3)}


def publish(folder, result):
    """The tables of a unit, as a job leaves them."""
    from cluster import storage

    for name, table in result.features.items():
        unit = table["clip_id"][0].as_py()
        storage.publish_table(table, f"{folder}/{name}/{unit}.parquet")


class Line:
    """Readers make units ready, takers work on them; a short queue lies between."""

    def __init__(self, read, take, *, readers, takers):
        self._read, self._take, self._readers, self._takers = read, take, readers, takers
        self.results, self.rate = [], 0.0

    def run(self, units, budget_s=float("inf")):
        """Work until all units are done or the time is over.

        The rate counts from when every reader has brought a unit: the first ones come all at once.
        """
        from encoders.media import Decoder

        todo, ready = queue.SimpleQueue(), queue.Queue(2 * self._takers + self._readers)
        for unit in units:
            todo.put(unit)
        end, begun, done = threading.Event(), [], []

        def read():
            with Decoder() as decoder:
                while not end.is_set():
                    try:
                        unit = todo.get_nowait()
                    except queue.Empty:
                        return
                    ready.put(self._read(decoder, unit))

        def take():
            try:
                work()
            except BaseException:
                end.set()
                while ready.get() is not None:  # readers may wait to put
                    pass
                raise

        def work():
            while (unit := ready.get()) is not None:
                if not begun:
                    begun.append(time.monotonic())
                self.results.append(self._take(unit))
                done.append((time.monotonic(), len(unit)))
                if time.monotonic() - begun[0] > budget_s:
                    end.set()

        with ThreadPoolExecutor(self._readers + self._takers) as threads:
            takers = [threads.submit(take) for _ in range(self._takers)]
            readers = [threads.submit(read) for _ in range(self._readers)]
            try:
                for future in readers:
                    future.result()
            finally:
                for _ in takers:
                    ready.put(None)
            for future in takers:
                future.result()
        done.sort()
        first = self._readers - 1 if len(done) > 2 * self._readers else 0
        since = done[first][0] if first else begun[0]
        counted = sum(count for _, count in (done[first + 1 :] if first else done))
        self.rate = counted / max(done[-1][0] - since, 1e-9)
        return self


def with_ray(task, stack, path, alone):
    """The stream of `affuse encode` over the same clips and models, held against their rates alone."""
    from cluster.growth import planned_capacity
    from cluster.resources import WorkersConfig, plan_stream
    from cluster.session import SessionConfig, ray_session
    from jobs.benchmark import measured_tasks, one_pass
    from jobs.benchmarking.rates import measure_whole
    from jobs.catalog.manifest import units
    from jobs.stream.job import DecodingConfig, StreamJob, Work
    from jobs.stream.selection import models_gb
    from jobs.stream.sink import FeatureSink

    root = prepared(task, path)
    work = Work(descriptors=stack, transcriber=None, store=str(task.work))
    tasks = measured_tasks(units(root), work, COPIES[task.small])
    with ray_session(SessionConfig()):
        plan = one_pass(plan_stream(models_gb(work), planned_capacity(None), WorkersConfig()))
        work = replace(work, threads=plan.encode.threads_each)
        job = StreamJob(root=root, work=work, decoding=DecodingConfig(), sink=FeatureSink())
        with Busy(task.device) as busy:
            whole = measure_whole(job, tasks, plan)
    found = {"whole_clips_per_s": round(whole.steady, 2)}
    if alone:
        found = rates(task, alone["decode"], alone["models"], whole.steady)
    facts = {"start_s": round(whole.start_s, 1), "plan": plan.lines()}
    return found | facts | busy.facts()


def prepared(task, path):
    """A root over copies of a clip."""
    media = task.work / "media"
    media.mkdir(exist_ok=True)
    names = [f"clip{number:04d}" for number in range(COPIES[task.small])]
    for name in names:
        shutil.copy(path, media / f"{name}.mp4")
    labels = media / "labels.csv"
    lines = [f"{name},so funny what a day" for name in names]
    labels.write_text("\n".join(["name,text", *lines]) + "\n")
    root = str(task.work / "root")
    words = ["prepare", "folder", "--source", str(media), "--labels", str(labels), "--root", root]
    affuse([*words, "--unit-clips", str(UNIT[task.small])], task)
    return root
