"""Input and output types of encoders; `encoders.spec` exports them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8


@dataclass(frozen=True, kw_only=True)
class FramePolicy:
    """Selection of the frames that an encoder reads; part of its fingerprint."""

    kind: Literal["even", "fps", "windows"]
    """even: `count` frames spread evenly. fps: `rate_hz` frames a second. windows: successive runs
    of `count` frames at `rate_hz`, the last one padded by its last frame."""

    count: int = 8
    rate_hz: float = 5.0
    size: int = 256
    """Shorter side of the decoded frame [px]; never enlarged."""

    max_frames: int = 512
    """Cap; above it fewer frames a second are taken and the clip's status is `partial`."""


@dataclass(frozen=True)
class Frames:
    """Sampled frames, RGB."""

    pixels: UInt8[np.ndarray, "frames height width 3"]
    times_s: Float[np.ndarray, " frames"]


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What has to be decoded: the union over the encoders of a job is decoded once."""

    rates_hz: frozenset[int] = frozenset()
    """Sampling rates at which the mono waveform is wanted."""

    frames: frozenset[FramePolicy] = frozenset()
    text: bool = False

    def __or__(self, other: "Needs") -> "Needs":
        return Needs(
            rates_hz=self.rates_hz | other.rates_hz,
            frames=self.frames | other.frames,
            text=self.text or other.text,
        )


@dataclass(frozen=True)
class Word:
    """One word of a transcript, in seconds from the start of the clip."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One decoded clip, as every encoder receives it. What the clip does not have is absent."""

    clip_id: int
    duration_s: float
    waveforms: Mapping[int, Float32[np.ndarray, " samples"]] = field(default_factory=dict)
    """Sampling rate [Hz] -> mono samples in [-1, 1]."""

    audio_start_s: float = 0.0
    """Where in the clip the first sample lies; containers may start their sound late."""

    frames: Mapping[FramePolicy, Frames] = field(default_factory=dict)
    text: str | None = None
    words: Sequence[Word] | None = None
    context: tuple[Sequence[str], Sequence[str]] = ((), ())
    """Texts of the utterances before (oldest first) and after, where a context was asked for."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Output of one encoder for one clip: `steps x dim`; a pooled feature has one step."""

    values: Float32[np.ndarray, "steps dim"] | UInt8[np.ndarray, "steps dim"]
    step_start_s: Float[np.ndarray, " steps"]
    step_end_s: Float[np.ndarray, " steps"]
    valid: Bool[np.ndarray, " steps"]
    """False where the step says nothing (no face, no speech)."""

    side: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Further columns the spec declares, one row a step."""

    partial: str | None = None
    """Why less than the whole clip was encoded."""


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """Recognised speech of one clip; empty text where there is no speech."""

    text: str
    words: Sequence[Word]
    language: str
    confidence: float
