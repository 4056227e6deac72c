"""Augmented views: a decoded clip as it might have been recorded otherwise, for training rows only.

    audio   played at 0.9 to 1.1 times its speed (and pitch), with white noise at 15 to 30 dB below it
    video   0.85 to 1 of each side of the frame, mirrored half of the time unless a face is looked for
    text    none

All draws are named by the clip's id and the view's number, so that a view is the same whenever and wherever
it is made. The clip that goes in is left as it is.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32

from encoders.clip import Clip, Encoded, FramePolicy, Frames, Needs, Word


@dataclass(frozen=True, kw_only=True)
class View:
    """One view and what may be drawn for it; part of an encoder's fingerprint."""

    number: int
    """Counted from 1."""

    snr_db: tuple[float, float] = (15.0, 30.0)
    """Power of the sound over that of the noise [dB]."""

    speed: tuple[float, float] = (0.9, 1.1)
    """Above 1: shorter and higher. Drawn in hundredths."""

    crop: tuple[float, float] = (0.85, 1.0)
    """Share of each side of the frame that is kept."""

    mirror: bool = True
    """Half of the clips are mirrored."""


@dataclass(frozen=True, kw_only=True)
class Draws:
    """What was drawn for one clip."""

    snr_db: float
    speed: float
    crop: float
    left: float
    """Share of what is cut away that lies left of the picture [0..1]."""

    top: float
    mirrored: bool
    noise_seed: int


def draws_of(clip_id: int, view: View) -> Draws:
    """What a view draws for a clip."""
    digest = hashlib.sha256(f"view:{view.number}:{clip_id}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    return Draws(
        snr_db=float(rng.uniform(*view.snr_db)),
        speed=round(float(rng.uniform(*view.speed)), 2),
        crop=float(rng.uniform(*view.crop)),
        left=float(rng.uniform()),
        top=float(rng.uniform()),
        mirrored=bool(rng.uniform() < 0.5) and view.mirror,
        noise_seed=int(rng.integers(2**32)),
    )


def augmented(clip: Clip, view: View, needs: Needs) -> Clip:
    """The clip as an encoder reads it in a view: only what it needs, with new times where sound is read."""
    draws = draws_of(clip.clip_id, view)
    seen = replace(
        clip,
        waveforms={
            rate: noisy(faster(wave, draws.speed), draws.snr_db, draws.noise_seed)
            for rate, wave in clip.waveforms.items()
            if rate in needs.rates_hz
        },
        frames=_pictures(clip.frames, draws, needs),
    )
    return _shortened(seen, draws.speed) if needs.rates_hz else seen


def in_original_time(encoded: Encoded, clip_id: int, view: View, needs: Needs) -> Encoded:
    """Steps of a view with the times at which they stand in the original clip."""
    speed = draws_of(clip_id, view).speed if needs.rates_hz else 1.0
    return replace(
        encoded, step_start_s=encoded.step_start_s * speed, step_end_s=encoded.step_end_s * speed
    )


def faster(wave: Float32[np.ndarray, " samples"], speed: float) -> Float32[np.ndarray, " _"]:
    """Played `speed` times as fast, by resampling: 440 Hz at 1.1 become 484 Hz.

    Args:
        wave: mono samples.
        speed: in hundredths.
    """
    from scipy.signal import resample_poly

    hundredths = round(100 * speed)
    if hundredths == 100 or len(wave) == 0:
        return wave
    played: np.ndarray = resample_poly(wave.astype(np.float32), 100, hundredths)
    return played.astype(np.float32)


def noisy(
    wave: Float32[np.ndarray, " samples"], snr_db: float, seed: int
) -> Float32[np.ndarray, " samples"]:
    """With white noise `snr_db` below the mean power of the sound; silence stays silence."""
    power = float(np.mean(np.square(wave, dtype=np.float64))) if len(wave) else 0.0
    spread = np.sqrt(power / 10 ** (snr_db / 10))
    noise = np.random.default_rng(seed).standard_normal(len(wave), np.float32)
    heard: np.ndarray = np.clip(wave + np.float32(spread) * noise, -1.0, 1.0)
    return heard


def cropped(frames: Frames, share: float, left: float, top: float) -> Frames:
    """The same part of every frame: `share` of each side, at least one pixel."""
    height, width = frames.pixels.shape[1:3]
    rows, columns = max(1, round(share * height)), max(1, round(share * width))
    y, x = round(top * (height - rows)), round(left * (width - columns))
    return Frames(frames.pixels[:, y : y + rows, x : x + columns], frames.times_s)


def mirrored(frames: Frames) -> Frames:
    """Left and right exchanged."""
    return Frames(frames.pixels[:, :, ::-1], frames.times_s)


def _pictures(
    frames: Mapping[FramePolicy, Frames], draws: Draws, needs: Needs
) -> dict[FramePolicy, Frames]:
    seen = {}
    for policy, each in frames.items():
        if policy in needs.frames:
            part = cropped(each, draws.crop, draws.left, draws.top)
            part = mirrored(part) if draws.mirrored else part
            seen[policy] = Frames(np.ascontiguousarray(part.pixels), part.times_s)
    return seen


def _shortened(clip: Clip, speed: float) -> Clip:
    """All times of a clip that is played faster."""
    words = clip.words
    if words is not None:
        words = [Word(w.text, w.start_s / speed, w.end_s / speed) for w in words]
    return replace(
        clip,
        duration_s=clip.duration_s / speed,
        audio_start_s=clip.audio_start_s / speed,
        words=words,
    )
