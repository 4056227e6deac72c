"""Features of clips whose sound was spoilt on purpose: noise, other voices, a telephone line.

    python tests/benchmarks/shifted_clips.py --data FOLDER --out FOLDER [--more CLIPS]

FOLDER holds `ravdess/` with its `flac16k/` and `labels.csv`. Clips of every third actor are spoilt, encoded
and written as `<out>/<shift>.npz` (name, egemaps, whisper); `--more` is a folder of clips of another corpus,
as it is. What is there is not made again.
"""

import argparse
import csv
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import butter, sosfilt

from cluster.tables import vectors_of
from encoders.registry import describe
from encoders.store import default_store
from jobs.scoring.in_process import OneByOne, clip_of
from jobs.stream.decode import decoder_of
from jobs.stream.job import STALL_LIMIT_S, DecodingConfig, UnitResult, Work

RATE = 16_000
ENCODERS = {"egemaps": "egemaps", "whisper": "whisper_tiny_en:layers=all,pool=mean_std"}
TEST_ACTORS = range(3, 25, 3)

Spoil = Callable[[np.ndarray, np.random.Generator, list[np.ndarray]], np.ndarray]


def noisy(decibels: float) -> Spoil:
    """White noise at a ratio of the clip's power to it."""

    def spoil(wave: np.ndarray, draw: np.random.Generator, _: list[np.ndarray]) -> np.ndarray:
        return mixed(wave, draw.normal(size=len(wave)), decibels)

    return spoil


def babble(wave: np.ndarray, draw: np.random.Generator, others: list[np.ndarray]) -> np.ndarray:
    """Four other voices at 5 dB."""
    chosen = [others[i] for i in draw.integers(len(others), size=4)]
    return mixed(wave, np.sum([np.resize(voice, len(wave)) for voice in chosen], axis=0), 5.0)


def telephone(wave: np.ndarray, _: np.random.Generator, __: list[np.ndarray]) -> np.ndarray:
    """300 to 3400 Hz, eight bits by the law of mu."""
    band = sosfilt(butter(6, (300, 3400), "bandpass", fs=RATE, output="sos"), wave)
    peak = max(float(np.abs(band).max()), 1e-9)
    squeezed = np.sign(band) * np.log1p(255 * np.abs(band) / peak) / np.log(256)
    steps = np.round(squeezed * 127) / 127
    return np.asarray(np.sign(steps) * np.expm1(np.abs(steps) * np.log(256)) / 255 * peak)


def mixed(wave: np.ndarray, other: np.ndarray, decibels: float) -> np.ndarray:
    """A sum, the second so many decibels below the first."""
    power = float(np.square(wave).mean() / max(np.square(other).mean(), 1e-12))
    return np.asarray(wave + other * np.sqrt(power / 10 ** (decibels / 10)))


SHIFTS: dict[str, Spoil] = {
    "noise at 10 dB": noisy(10.0),
    "noise at 0 dB": noisy(0.0),
    "voices at 5 dB": babble,
    "telephone": telephone,
}


def main() -> None:
    """Spoil, encode, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--more", type=Path)
    parser.add_argument("--each", type=int, default=30, help="clips of an actor")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    folder = args.data / "ravdess"
    rows = list(csv.DictReader((folder / "labels.csv").open()))
    waves = {row["name"]: folder / "flac16k" / f"{row['name']}.flac" for row in rows}
    chosen = [
        row["name"] for actor in TEST_ACTORS
        for row in [each for each in rows if int(each["actor"]) == actor][:: 60 // args.each]
    ]  # fmt: skip
    encoder = loaded()
    for title, spoil in SHIFTS.items():
        made = args.out / f"{title.replace(' ', '_')}.npz"
        if not made.exists():
            copies = spoilt(chosen, waves, spoil, args.out / "clips" / made.stem)
            encoded(copies, encoder, made)
    if args.more is not None and not (made := args.out / "other_corpus.npz").exists():
        encoded({path.stem: path for path in sorted(args.more.iterdir())}, encoder, made)


def loaded() -> OneByOne:
    """The two encoders of sound."""
    models = tuple(describe(text) for text in ENCODERS.values())
    work = Work(descriptors=models, transcriber=None, store=default_store(""))
    return OneByOne(work, DecodingConfig(), STALL_LIMIT_S)


def spoilt(
    names: Iterable[str], waves: dict[str, Path], spoil: Spoil, folder: Path
) -> dict[str, Path]:
    """Spoilt copies of clips, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    others = [soundfile.read(waves[name])[0] for name in [*waves][::48]]
    copies = {}
    for name in names:
        wave = spoil(soundfile.read(waves[name])[0], draw, others)
        copies[name] = folder / f"{name}.flac"
        soundfile.write(copies[name], wave / max(1.0, np.abs(wave).max()), RATE)
    return copies


def encoded(clips: dict[str, Path], encoder: OneByOne, made: Path) -> None:
    """Encode clips and write their features; one that fails is left out."""
    folders = dict(zip(ENCODERS, encoder.work.by_folder, strict=True))
    decoder = decoder_of(encoder.decoding)
    kept: dict[str, list[np.ndarray]] = {name: [] for name in ENCODERS}
    names = []
    for name, path in clips.items():
        found = encoder.outcome(clip_of(str(path), name, decoder))
        if not isinstance(found, UnitResult):
            continue
        values = {
            key: vectors_of(found.features[folder]["values"]) for key, folder in folders.items()
        }
        if all(len(each) for each in values.values()):
            names.append(name)
            for key, each in values.items():
                kept[key].append(each.mean(0))
    arrays = {key: np.array(each, np.float32) for key, each in kept.items()}
    np.savez_compressed(made, name=np.array(names), **arrays)
    print(f"{made}: {len(names)} of {len(clips)} clips", flush=True)


if __name__ == "__main__":
    main()
