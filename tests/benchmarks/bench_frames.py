"""CPU time of reading a few frames out of a film: our reader against decord, both on one thread.

    python tests/benchmarks/bench_frames.py
    python tests/benchmarks/bench_frames.py --codecs libx264 --frames 4 16 --rounds 5

Films are made on the spot: moving texture, 10 s at 25 frames a second, as a phone writes them (B-frames, long
runs between key frames) or a screen recorder (no B-frames, a key frame every two seconds). A line is one kind
of film and number of frames; times are the best of the rounds [ms], the ratio is ours over decord's (or
decord2's, which goes by the same import; a codec that it cannot read shows `nan`).
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np

from encoders.decoding.display import resized
from encoders.decoding.frames import read_frames
from encoders.decoding.sources import Source, staged
from encoders.spec import FramePolicy

SIZES = {"640x360": (640, 360), "1280x720": (1280, 720), "1920x1080": (1920, 1080)}
STYLES = {"phone": {"g": "250", "bf": "3"}, "screen": {"g": "50", "bf": "0"}}
SIZE = 224


def write_film(path: Path, codec: str, size: tuple[int, int], style: str, seconds: float) -> None:
    """One film of a texture that moves, with noise as a camera has."""
    width, height = size
    draw = np.random.default_rng(0)
    texture = draw.integers(0, 255, (height // 8, width // 8, 3)).repeat(8, 0).repeat(8, 1)
    options = dict(STYLES[style])
    if codec != "libsvtav1":
        options |= {"preset": "veryfast"}
    if codec == "libx265":
        options["x265-params"] = f"log-level=none:bframes={options['bf']}:keyint={options['g']}"
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(round(seconds * 25)):
            image = np.roll(texture, (3 * number, 5 * number), (0, 1))
            image = np.clip(image + draw.integers(0, 6, image.shape), 0, 255).astype(np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(stream.encode(None))
    if hasattr(os, "sched_setscheduler"):
        # SVT-AV1 makes the calling thread of root a real-time one.
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def ours(path: str, count: int) -> np.ndarray:
    """The frames as `encode` reads them."""
    policy = FramePolicy(kind="even", count=count, size=SIZE)
    with staged(Source(path)) as local:
        return read_frames(local, [policy], None, None, 1 << 30, 1).frames[policy].pixels


def by_decord(path: str, count: int) -> np.ndarray:
    """The same frames by decord."""
    import decord

    reader = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
    wanted = [int((k + 0.5) * len(reader) / count) for k in range(count)]
    return np.stack([resized(image, SIZE) for image in reader.get_batch(wanted).asnumpy()])


def cpu_ms(read: Callable[[str, int], np.ndarray], path: str, count: int, rounds: int) -> float:
    """The least CPU time of one reading [ms]; not a number where it fails."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        try:
            frames = read(path, count)
        except Exception:  # noqa: BLE001 (a decoder without the codec, or none installed)
            return float("nan")
        times.append(time.process_time() - start)
        assert len(frames) == count
    return 1000 * min(times)


def main() -> None:
    """Make the films, read them both ways, print a line each."""
    os.environ.setdefault("SVT_LOG", "-1")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--codecs", nargs="+", default=["libx264", "libx265", "libsvtav1"])
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--styles", nargs="+", default=list(STYLES), choices=list(STYLES))
    parser.add_argument("--frames", nargs="+", type=int, default=[4, 16])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(
        f"{'codec':<10} {'size':<10} {'style':<7} {'frames':>6} {'ours':>8} {'decord':>8} {'ratio':>6}"
    )
    with tempfile.TemporaryDirectory() as folder:
        for codec in arguments.codecs:
            for name in arguments.sizes:
                for style in arguments.styles:
                    path = Path(folder) / f"{codec}-{name}-{style}.mp4"
                    write_film(path, codec, SIZES[name], style, arguments.seconds)
                    for count in arguments.frames:
                        times = [
                            cpu_ms(read, str(path), count, arguments.rounds)
                            for read in (ours, by_decord)
                        ]
                        print(
                            f"{codec:<10} {name:<10} {style:<7} {count:>6} {times[0]:>8.0f} "
                            f"{times[1]:>8.0f} {times[0] / times[1]:>6.2f}",
                            flush=True,
                        )
                    path.unlink()


if __name__ == "__main__":
    main()
