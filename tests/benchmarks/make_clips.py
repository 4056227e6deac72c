"""Clips of 1 to 20 s for `affuse benchmark encode`: films of the synthetic corpus, joined to random lengths.

    affuse prepare synthetic --root data/synthetic
    python tests/benchmarks/make_clips.py data/synthetic/clips data/long/media
    affuse prepare folder --source data/long/media --labels data/long/media/labels.csv --root data/long
    affuse benchmark encode --root data/long --encoders minilm whisper_tiny_en egemaps face_expression

Every clip shows faces, voices and sentences for all of its time; lengths are even over the span.
"""

import argparse
import csv
import itertools
import random
from pathlib import Path

import av
import numpy as np

from jobs.datasets.corpus.film import FPS, mux

RATE_HZ = 16000
WORDS = ["we", "saw", "the", "old", "dog", "run", "home", "again"]


def read(path: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """Frames [height width 3] and samples [time] of one film."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE_HZ)
    with av.open(str(path)) as container:
        packs = [pack for frame in container.decode(audio=0) for pack in resampler.resample(frame)]
        packs += resampler.resample(None)
    return frames, np.concatenate([pack.to_ndarray()[0] for pack in packs])


def main() -> None:
    """Write the clips and their table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="films of the synthetic corpus")
    parser.add_argument("to", type=Path)
    parser.add_argument("--clips", type=int, default=400)
    parser.add_argument("--span", type=float, nargs=2, default=(1.0, 20.0), help="seconds")
    arguments = parser.parse_args()
    draw = random.Random(0)
    films = sorted(arguments.source.rglob("*.mp4"))
    films = draw.sample(films, min(60, len(films)))
    scenes = itertools.cycle([read(path) for path in films])
    arguments.to.mkdir(parents=True, exist_ok=True)
    durations_s = np.linspace(*arguments.span, arguments.clips).tolist()
    draw.shuffle(durations_s)
    rows = []
    for number, duration_s in enumerate(durations_s):
        frames: list[np.ndarray] = []
        sounds = []
        while len(frames) < duration_s * FPS:
            more, sound = next(scenes)
            frames += more
            sounds.append(sound)
        name = f"clip{number:04d}"
        count = max(1, round(duration_s * FPS))
        sound = np.concatenate(sounds)[: int(duration_s * RATE_HZ)]
        mux(frames[:count], sound, RATE_HZ, str(arguments.to / f"{name}.mp4"))
        words = max(1, round(2.5 * duration_s))
        rows.append((name, " ".join(draw.choices(WORDS, k=words))))
    with (arguments.to / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("name", "text"), *rows])
    print(f"wrote {arguments.clips} clips to {arguments.to}")


if __name__ == "__main__":
    main()
