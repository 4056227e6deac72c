"""Films one line of the synthetic corpus: a face, a voice and a sentence in one MP4 (H.264 and AAC)."""

from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

from jobs.datasets.corpus.face import EXPRESSIONS, Expression, Image, paint, photograph
from jobs.datasets.corpus.script import ScriptLine
from jobs.datasets.corpus.voice import Delivery, Voice

FPS = 12
MIN_S, MAX_S = 2.0, 3.0
LEAD_S = 0.15
"""Silence before the first word and at least as much after the last [s]."""

BLINK = Expression(eye_open=-0.02)
SPEECH_OPENING = 0.022
"""How far the lips part at the loudest syllable."""

MANNER: dict[str, Delivery] = {
    "angry": Delivery(pitch=-6, pitch_range=60, rate=200, volume=150),
    "happy": Delivery(pitch=10, pitch_range=85, rate=190, volume=85),
    "ironic": Delivery(pitch=-18, pitch_range=4, rate=150, volume=30),
    "neutral": Delivery(pitch=0, pitch_range=26, rate=168, volume=62),
    "surprised": Delivery(pitch=36, pitch_range=100, rate=148, volume=120),
}
"""How a manner is said; pitch is relative to the speaker's own."""


def film(line: ScriptLine, *, voice: Voice, seed: int, to: str) -> None:
    """Write the clip of one line to a local file."""
    # A stream of its own for each, so that a voice a few samples longer changes no picture.
    for_sound, for_pictures = np.random.default_rng([seed, *line.name.encode()]).spawn(2)
    sound = _speak(line, voice, for_sound)
    frames = _act(line, _loudness(sound, voice.rate_hz), for_pictures)
    mux(frames, sound, voice.rate_hz, to)


def monologue(
    lines: Sequence[ScriptLine], *, length_s: float, voice: Voice, seed: int, to: str
) -> NDArray[np.int16]:
    """Write a film of a length in which one speaker says several lines, over again where they are short.

    Args:
        lines: of one speaker; the face is that of the first.
        length_s: of the film [s].
        voice: says them.
        seed: of the small differences.
        to: local file.

    Returns:
        The sound, at the rate of the voice: [sample].
    """
    rng = np.random.default_rng(seed)
    said = np.concatenate([_speak(line, voice, rng) for line in lines])
    sound = np.resize(said, round(length_s * voice.rate_hz))
    mux(_act(lines[0], _loudness(sound, voice.rate_hz), rng), sound, voice.rate_hz, to)
    return sound


def _speak(line: ScriptLine, voice: Voice, rng: np.random.Generator) -> NDArray[np.int16]:
    """The sentence with silence around it and a little room noise: [sample]."""
    manner = MANNER[line.manner]
    delivery = Delivery(
        pitch=float(np.clip(line.speaker.pitch + manner.pitch + rng.normal(0, 3), 0, 100)),
        pitch_range=float(np.clip(manner.pitch_range + rng.normal(0, 5), 0, 100)),
        rate=manner.rate + rng.normal(0, 5),
        volume=manner.volume * rng.uniform(0.9, 1.1),
    )
    spoken = voice.say(line.sentence, voice=line.speaker.voice, delivery=delivery)
    room_s = MAX_S - 2 * LEAD_S
    longest = int(room_s * voice.rate_hz)
    if len(spoken) > longest:
        faster = delivery.rate * 1.08 * len(spoken) / longest
        delivery = Delivery(
            pitch=delivery.pitch, pitch_range=delivery.pitch_range, rate=faster,
            volume=delivery.volume,
        )  # fmt: skip
        spoken = voice.say(line.sentence, voice=line.speaker.voice, delivery=delivery)[:longest]
    lead = int(LEAD_S * voice.rate_hz)
    total = max(int(MIN_S * voice.rate_hz), len(spoken) + 2 * lead)
    sound = rng.normal(0, 12, total)
    sound[lead : lead + len(spoken)] += spoken
    return np.clip(sound, -32768, 32767).astype(np.int16)


def _loudness(sound: NDArray[np.int16], rate_hz: int) -> NDArray[np.float64]:
    """Loudness at each frame, 0 to 1: [frame]."""
    hop = rate_hz // FPS
    chunks = sound[: len(sound) // hop * hop].reshape(-1, hop).astype(np.float64)
    level = np.sqrt((chunks**2).mean(1))
    return np.asarray(level / max(level.max(), 1.0))


def _act(
    line: ScriptLine, loudness: NDArray[np.float64], rng: np.random.Generator
) -> list[NDArray[np.uint8]]:
    """The frames: lips move with the voice, the head drifts, the eyes blink once."""
    felt = EXPRESSIONS[line.face].scaled(line.strength)
    look = line.speaker.look
    mouths: list[Image] = [
        paint(look, felt + Expression(mouth_open=SPEECH_OPENING * level)) for level in (0, 0.5, 1)
    ]
    blink = paint(look, felt + BLINK)
    blink_at = int(rng.integers(2, len(loudness) - 2))
    time_s = np.arange(len(loudness)) / FPS
    phase = rng.uniform(0, 2 * np.pi, 2)
    dx = 6 * np.sin(2 * np.pi * 0.35 * time_s + phase[0]) + rng.uniform(-3, 3)
    dy = 3 * np.sin(2 * np.pi * 0.55 * time_s + phase[1]) + rng.uniform(-3, 3)
    light = float(rng.uniform(0.94, 1.05))
    frames = []
    for index, level in enumerate(loudness):
        scene = blink if index == blink_at else mouths[round(2 * float(level))]
        frames.append(photograph(scene, dx=dx[index], dy=dy[index], light=light, rng=rng))
    return frames


def mux(frames: list[NDArray[np.uint8]], sound: NDArray[np.int16], rate_hz: int, to: str) -> None:
    """Write frames [height width 3] at `FPS` and samples [time] as H.264 and AAC in an MP4."""
    with av.open(to, "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=FPS)
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt = "yuv420p"
        video.options = {"preset": "veryfast", "crf": "20", "threads": "1"}
        audio = container.add_stream("aac", rate=rate_hz, layout="mono")
        audio.bit_rate = 96_000
        for index, pixels in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, FPS)
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        for start in range(0, len(sound), 1024):
            chunk = np.ascontiguousarray(sound[None, start : start + 1024])
            block = av.AudioFrame.from_ndarray(chunk, format="s16", layout="mono")
            block.sample_rate, block.pts = rate_hz, start
            block.time_base = Fraction(1, rate_hz)
            container.mux(audio.encode(block))
        container.mux(audio.encode(None))
