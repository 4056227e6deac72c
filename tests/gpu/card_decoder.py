"""Decoding on the card by torchcodec, of part `decode`: how fast it is, and how far its pixels are from ours.

Nothing in the project decodes so. These figures are what it would take to decide: a decoder that gives other
pixels than ours gives other features, and must not do so under the same fingerprint.
"""

import time
from concurrent.futures import ThreadPoolExecutor

import torch
from torch.nn.functional import interpolate

from encoders.clip import Needs
from encoders.media import ClipSource, Decoder, Source

AT_ONCE = 7
"""Films in hand: an H100 has so many decoders."""

AT_A_TIME = 32
"""Frames that are made small together; 200 MB at 1080p."""


def figures(path, policy, task, budget_s):
    """Clips a second with all frames of each, made small on the card.

    Args:
        path: of the film.
        policy: takes every frame of it.
        task: which device.
        budget_s: time to spend.
    """
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, OSError, RuntimeError) as error:  # its libraries are loaded by hand
        raise RuntimeError(f"torchcodec cannot be loaded here: {type(error).__name__}") from error

    ours = frames_of_ours(path, policy)

    def read(_=None):
        film = VideoDecoder(str(path), device=task.device)
        return small_frames(film, tuple(ours.shape[1:3]))

    theirs = read().permute(0, 2, 3, 1).float().cpu()
    if len(theirs) != len(ours):
        raise ValueError(f"it reads {len(theirs)} frames, we read {len(ours)}")
    apart = (theirs - torch.from_numpy(ours).float()).abs()
    begun, count = time.monotonic(), 0
    with ThreadPoolExecutor(AT_ONCE) as threads:
        while time.monotonic() - begun < budget_s:
            count += len(list(threads.map(read, range(AT_ONCE))))
    return {
        "clips_per_s": round(count / (time.monotonic() - begun), 2),
        "mean_apart": round(float(apart.mean()), 3),
        "most_apart": round(float(apart.max())),
    }


def frames_of_ours(path, policy):
    """The film as our reader gives it: uint8 [frame height width 3]."""
    with Decoder() as decoder:
        source = ClipSource(clip_id=0, video=Source(str(path)))
        return decoder.decode(source, Needs(frames=frozenset([policy]))).clip.frames[policy].pixels


def small_frames(film, size):
    """All frames, a few at a time, by the mean over each new pixel as ours are: float [frame 3 *size]."""
    starts = range(0, len(film), AT_A_TIME)
    parts = (film.get_frames_in_range(at, min(at + AT_A_TIME, len(film))).data for at in starts)
    return torch.cat([interpolate(part.float(), size, mode="area") for part in parts])
