"""Speaker normalisation: the mean and spread of each speaker's own clips are removed.

    z = (x - mean_s) / std_s        over the valid steps of speaker s: of all their clips, or of K of them

Transductive: it reads (unlabelled) clips of the evaluated speakers.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from cluster.errors import ConfigError
from fusion.training.ordering import seed_of
from jobs.training.feeds import Clips, Store

CHUNK_BYTES = 2_000_000
"""Size of the values that are processed at a time."""


def enrolment(normalise: str) -> int | None:
    """How many clips of a speaker `normalise` takes its statistics from; None: all of them, or no need.

    Raises:
        ConfigError: neither none, speaker nor speaker:K with K of 2 or more.

    >>> enrolment("speaker:8")
    8
    """
    kind, colon, count = normalise.partition(":")
    if kind == "speaker" and colon and count.isascii() and count.isdigit() and int(count) >= 2:
        return int(count)
    if normalise not in ("none", "speaker"):
        raise ConfigError(
            f"normalise {normalise!r}: expected none, speaker or speaker:K with K of 2 or more, "
            "e.g. speaker:8"
        )
    return None


def remove_speakers(store: Store, clips: Clips, enrolled: int | None = None) -> None:
    """Remove each speaker's own mean and spread, in place.

    Args:
        store: of one input, float32.
        clips: whose speakers are known.
        enrolled: statistics from so many clips of a speaker that have the input, drawn by their ids (so that
            further clips of others change nothing); fewer where there are fewer. None: from all of them.

    Raises:
        ConfigError: a clip without a speaker.
    """
    if any(speaker is None for speaker in clips.speaker):
        raise ConfigError("normalise=speaker: the manifest has clips without a speaker")
    if not len(store.values):
        return
    _, code = np.unique(clips.speaker.astype(str), return_inverse=True)
    gives_statistics = _enrolled(store, clips, code, enrolled)
    in_order = np.argsort(code, kind="stable")
    for own in np.split(in_order, np.flatnonzero(np.diff(code[in_order])) + 1):
        steps = _valid_steps(store, own[gives_statistics[own]])
        if not len(steps):
            continue
        mean, scale = _moments(store, steps)
        for at in _chunks(store, _valid_steps(store, own)):
            store.values[at] = (store.values[at] - mean) / scale


def _moments(store: Store, steps: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and spread of some steps [feature]; a spread of zero counts as one."""
    mean = torch.zeros(store.dim, dtype=torch.float64)
    for at in _chunks(store, steps):
        mean += store.values[at].double().sum(0) / len(steps)
    variance = torch.zeros_like(mean)
    for at in _chunks(store, steps):
        variance += (store.values[at].double() - mean).square().sum(0) / len(steps)
    std = variance.sqrt()
    return mean.float(), torch.where(std > 1e-6, std, 1.0).float()


def _valid_steps(store: Store, clips: np.ndarray) -> Tensor:
    """Where the valid steps of some clips lie [step]."""
    start, end = store.offsets[clips], store.offsets[clips + 1]
    parts = [torch.arange(a, b) for a, b in zip(start.tolist(), end.tolist(), strict=True)]
    steps = torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64)
    return steps[store.valid[steps]]


def _chunks(store: Store, steps: Tensor) -> Iterator[Tensor]:
    """A few steps at a time, each reported to the array that holds the values."""
    for at in torch.split(steps, max(1, CHUNK_BYTES // (4 * store.dim))):
        yield at
        if store.steps is not None:
            store.steps.touched(4 * store.dim * len(at), len(at))


def _enrolled(store: Store, clips: Clips, code: np.ndarray, count: int | None) -> np.ndarray:
    """Clips that the statistics of their speaker come from [clip]."""
    if count is None:
        return np.ones(len(code), bool)
    there = store.present.numpy()
    chance = np.array([seed_of("enrol", clip) for clip in clips.clip_id.tolist()])
    order = np.lexsort((chance, ~there, code))
    ordered = code[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    rank = np.arange(len(order)) - np.repeat(starts, np.diff([*starts, len(order)]))
    chosen = np.zeros(len(code), bool)
    chosen[order] = rank < count
    return np.asarray(chosen & there)
