"""eGeMAPS v02 of ours and of afx-audio against openSMILE: all 88 values over clips, and speeds on one core.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_egemaps.py FOLDER --clips 200

FOLDER holds sound files at 16 kHz. Of each value the median over clips of |ours - openSMILE's| over
|openSMILE's| and the correlation over clips; at last how many lie within 2 % and at or above 0.98, and how
many times faster than real time each is (CPU time). openSMILE's licence allows research and private use only.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import opensmile
import soundfile
from afx_audio.extractors.egemaps import extract_egemaps

from encoders.registry import describe, load
from encoders.spec import Clip


def timed(
    encode: Callable[[np.ndarray], np.ndarray], sounds: list[np.ndarray]
) -> tuple[np.ndarray, float]:
    """Values of all sounds, and seconds of sound in a second of CPU."""
    encode(sounds[0])
    begin = time.process_time()
    values = np.stack([encode(sound) for sound in sounds])
    seconds = time.process_time() - begin
    return values.astype(float), sum(map(len, sounds)) / 16000 / seconds


def compared(own: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median relative difference and correlation of each column."""
    relative = np.median(np.abs(own - expected) / np.maximum(np.abs(expected), 1e-9), axis=0)
    with np.errstate(invalid="ignore"):
        correlation = [np.corrcoef(a, b)[0, 1] for a, b in zip(own.T, expected.T, strict=True)]
    return relative, np.array(correlation)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=200)
    asked = parser.parse_args()
    files = sorted(path for path in asked.folder.iterdir() if path.suffix in (".flac", ".wav"))
    chosen = np.random.default_rng(0).permutation(len(files))[: asked.clips]
    sounds = [soundfile.read(files[index], dtype="float32")[0] for index in sorted(chosen)]
    smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
    ours = load(describe("egemaps"), {})

    def by_us(sound: np.ndarray) -> np.ndarray:
        one = Clip(clip_id=0, waveforms={16000: sound}, duration_s=len(sound) / 16000)
        return ours.encode([one])[0].values[0]

    values = {
        "openSMILE": timed(lambda sound: smile.process_signal(sound, 16000).to_numpy()[0], sounds),
        "ours": timed(by_us, sounds),
        "afx": timed(lambda sound: extract_egemaps(sound, 16000)["egemaps"][:, 0], sounds),
    }
    expected = values["openSMILE"][0]
    tables = {name: compared(values[name][0], expected) for name in ("ours", "afx")}
    print(f"{'':48} ours: diff.    corr.    afx: diff.    corr.")
    for index, name in enumerate(smile.feature_names):
        (a, b), (c, d) = ((table[0][index], table[1][index]) for table in tables.values())
        print(f"{name:48} {a:11.4f} {b:8.3f} {c:13.4f} {d:8.3f}")
    for name, (relative, correlation) in tables.items():
        close, alike = (relative <= 0.02).sum(), (correlation >= 0.98).sum()
        print(f"{name}: {close} of 88 within 2 %, {alike} at 0.98 or more")
    print(
        "times real time:", ", ".join(f"{name} {speed:.0f}" for name, (_, speed) in values.items())
    )


if __name__ == "__main__":
    main()
