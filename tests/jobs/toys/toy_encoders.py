"""Cheap encoders with known answers and faults on demand; workers import this by PYTHONPATH."""

import ctypes
import errno
import os
import platform
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from encoders.spec import Encoded, EncoderSpec, FramePolicy, OwnAnswer, Transcript, Word


class ToyText:
    """Three numbers a word: its length, its first letter, its place."""

    def __init__(self, descriptor, weights, *, device="cpu", threads=1):
        self.descriptor = descriptor

    def encode(self, clips):
        try:
            return [self._one(clip) for clip in clips]
        finally:
            HELD.clear()

    def _one(self, clip):
        _misbehave(clip.text)
        words = clip.text.split()
        values = np.array([[len(w), ord(w[0]), i] for i, w in enumerate(words)], np.float32)
        return _encoded(values)


class ToyAudio:
    """Mean and peak of every tenth of a second."""

    def __init__(self, descriptor, weights, *, device="cpu", threads=1):
        self.descriptor = descriptor

    def encode(self, clips):
        return [self._one(clip) for clip in clips]

    def _one(self, clip):
        wave = clip.waveforms[8000]
        _misbehave(clip.text)
        time.sleep(float(os.environ.get("TOY_SLEEP_S", "0")))
        if folder := os.environ.get("TOY_HOSTS"):
            with Path(folder, platform.node()).open("a") as file:
                file.write("one clip\n")
        steps = [wave[i : i + 800] for i in range(0, len(wave), 800)]
        values = np.array([[s.mean(), np.abs(s).max()] for s in steps], np.float32)
        return _encoded(values)


class ToyMood:
    """One step: loud is happy, quiet is sad, nothing is not valid."""

    def __init__(self, descriptor, weights, *, device="cpu", threads=1):
        self.descriptor = descriptor

    def encode(self, clips):
        return [self._one(float(np.abs(clip.waveforms[8000]).max())) for clip in clips]

    def _one(self, loud):
        said = [0.8, 0.1, 0.1] if loud > 0.4 else [0.1, 0.8, 0.1]
        one = _encoded(np.array([[loud]], np.float32))
        return replace(one, valid=np.array([loud > 0]), side={"mood": np.array([said], np.float32)})


class ToyTone:
    """One step: the word `loud` is anger, all others are joy."""

    def __init__(self, descriptor, weights, *, device="cpu", threads=1):
        self.descriptor = descriptor

    def encode(self, clips):
        said = [[0.9, 0.1] if clip.text == "loud" else [0.1, 0.9] for clip in clips]
        return [
            replace(
                _encoded(np.ones((1, 1), np.float32)), side={"tone": np.array([one], np.float32)}
            )
            for one in said
        ]


class ToyVideo:
    """Shape and mean of every frame."""

    def __init__(self, descriptor, weights, *, device="cpu", threads=1):
        self.policy = descriptor.frame_policy

    def encode(self, clips):
        frames = [clip.frames[self.policy].pixels for clip in clips]
        return [
            _encoded(np.array([[*f.shape[:2], f.mean()] for f in each], np.float32))
            for each in frames
        ]


class ToyEar:
    """Hears one word: how loud it was."""

    def __init__(self, descriptor, weights, *, device="cpu", threads=1):
        self.descriptor = descriptor

    def transcribe(self, clips):
        heard = []
        for clip in clips:
            loud = float(np.abs(clip.waveforms[8000]).max())
            text = "" if loud == 0 else "loud" if loud > 0.4 else "quiet"
            words = [Word(text, 0.0, clip.duration_s)] if text else []
            heard.append(Transcript(text=text, words=words, language="en", confidence=0.5))
        return heard


TEXT = EncoderSpec(
    name="toy_text",
    modality="text",
    summary="words as numbers",
    implementation="toy_encoders:ToyText",
    weights=(),
    dim=3,
    licence="Apache-2.0",
    memory_gb=0.1,
)
AUDIO = EncoderSpec(
    name="toy_audio",
    modality="audio",
    summary="loudness",
    implementation="toy_encoders:ToyAudio",
    weights=(),
    dim=2,
    hop_s=0.1,
    rate_hz=8000,
    dtype="float32",
    licence="Apache-2.0",
    memory_gb=0.1,
)
MOOD = EncoderSpec(
    name="toy_mood",
    modality="audio",
    summary="loudness as a mood",
    implementation="toy_encoders:ToyMood",
    weights=(),
    dim=1,
    rate_hz=8000,
    side={"mood": 3},
    answers={"mood": OwnAnswer(classes=("happy", "sad", "neutral"))},
    licence="Apache-2.0",
    memory_gb=0.1,
)
TONE = EncoderSpec(
    name="toy_tone",
    modality="text",
    summary="words as a tone",
    implementation="toy_encoders:ToyTone",
    weights=(),
    dim=1,
    side={"tone": 2},
    answers={"tone": OwnAnswer(classes=("anger", "joy"))},
    licence="Apache-2.0",
    memory_gb=0.1,
)
VIDEO = EncoderSpec(
    name="toy_video",
    modality="video",
    summary="shape and light of frames",
    implementation="toy_encoders:ToyVideo",
    weights=(),
    dim=3,
    frames=FramePolicy(kind="even", count=4, size=32),
    dtype="float32",
    licence="Apache-2.0",
    memory_gb=0.1,
)
EAR = EncoderSpec(
    name="toy_ear",
    modality="audio",
    summary="hears loudness",
    implementation="toy_encoders:ToyEar",
    weights=(),
    dim=1,
    rate_hz=8000,
    licence="Apache-2.0",
    memory_gb=0.1,
)


def _encoded(values):
    steps = len(values)
    start = np.arange(steps) * 0.1
    return Encoded(
        values=values, step_start_s=start, step_end_s=start + 0.1, valid=np.ones(steps, bool)
    )


SPOILT = []
"""What this process's device says of every clip from now on."""


HELD = []
"""Memory that clips take and keep until their batch is done."""


def _misbehave(text):
    """What a clip's text asks for.

    `RAISE`: an error. `CRASH`: the process ends, always. `DIE marker`: it ends, once. `HANG`: it never comes
    back. `SLEEP 2`: it takes 2 s. `SPOIL message`: from here on every clip raises a RuntimeError of that
    message in this process. `FULL`: no space left on the device. `MEMORY`: no memory. `HOLD`: it hangs and
    keeps the interpreter to itself. `HOARD 2`: it takes 2 GB until its batch is done.
    """
    if SPOILT:
        raise RuntimeError(SPOILT[0])
    if text is None:
        return
    if "RAISE" in text:
        raise ValueError("asked to raise")
    if "HANG" in text:
        time.sleep(10_000)
    if "HOLD" in text:
        ctypes.PyDLL(None).sleep(10_000)  # unlike CDLL it does not let go of the interpreter
    if "SLEEP" in text:
        time.sleep(float(text.split()[1]))
    if "HOARD" in text:
        for _ in range(round(float(text.split()[1]) * 20)):
            HELD.append(np.ones(50_000_000, np.uint8))
            time.sleep(0.05)  # so that whoever looks now and then sees it grow
    if "SPOIL" in text:
        SPOILT.append(text.split(maxsplit=1)[1])
        raise RuntimeError(SPOILT[0])
    if "FULL" in text:
        raise OSError(errno.ENOSPC, "No space left on device", "/tmp/model.tmp")
    if "MEMORY" in text:
        raise MemoryError("asked to be full")
    if "CRASH" in text:
        os._exit(139)
    if "DIE" in text and not Path(text.split()[1]).exists():
        Path(text.split()[1]).write_text("")
        os._exit(139)
