"""Whether pictures are too dark for a face: said where none was found in them."""

import numpy as np

from cluster.errors import MediaError
from encoders.clip import FramePolicy, Needs
from encoders.media import ClipSource, Decoder, Source

LOOKED_AT = FramePolicy(kind="even", count=4, size=128)

LUMA = np.array([0.299, 0.587, 0.114], np.float32)

DARK = 24.0
"""Pictures whose brightest parts (95th percentile) are below this are dark, of 255."""

SENTENCE = "the picture is too dark for a face to be found"


def too_dark(file: str, decoder: Decoder) -> bool:
    """Whether all pictures of a file that are looked at are dark; False where none can be read."""
    clip = ClipSource(clip_id=0, video=Source(file))
    try:
        found = decoder.decode(clip, Needs(frames=frozenset({LOOKED_AT}))).clip.frames
    except MediaError:
        return False
    pixels = found[LOOKED_AT].pixels if LOOKED_AT in found else np.zeros((0, 1, 1, 3), np.uint8)
    return len(pixels) > 0 and float(np.percentile(pixels @ LUMA, 95)) < DARK
