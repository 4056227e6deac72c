"""Files made of chunks that tell their size: whether the last one reaches beyond the end of the file."""

import contextlib
from dataclasses import dataclass
from typing import Literal

from encoders.decoding.sources import Local

MOST_CHUNKS = 4096
"""More chunks than any program writes before its samples or pictures."""


@dataclass(frozen=True)
class _Layout:
    """How the chunks of one kind of file are written; sizes in bytes."""

    signs: tuple[bytes, ...]
    first: int
    """Where the first chunk lies."""

    name: int
    size: int
    order: Literal["little", "big"]
    whole: bool = False
    """Whether the size counts the chunk's own head."""

    padding: int = 1
    """Chunks begin at multiples of it."""


_LAYOUTS = (
    _Layout((b"RIFF", b"RF64"), 12, 4, 4, "little", padding=2),
    _Layout((b"FORM",), 12, 4, 4, "big", padding=2),
    _Layout((b"caff",), 8, 4, 8, "big"),
    _Layout((b"riff\x2e\x91\xcf\x11",), 40, 16, 8, "little", whole=True, padding=8),
    _Layout((b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",), 0, 16, 8, "little", whole=True),  # ASF
)

_CONTENT = (b"data", b"SSND", b"\x36\x26\xb2\x75")
"""Chunks that hold the samples or pictures: what follows them may be anything."""

ENDLESS = 0x7FF00000
"""Programs that do not know how much will come write a size of this or more."""


def missing_bytes(local: Local) -> str | None:
    """What a file that was cut short lacks, in words; None where every chunk is there or there are none."""
    head = local.head(16)
    layout = next((each for each in _LAYOUTS if head.startswith(each.signs)), None)
    if layout is None:
        return None
    position = layout.first
    with contextlib.closing(local.binary()) as file:
        for _ in range(MOST_CHUNKS):
            file.seek(position)
            chunk = file.read(layout.name + layout.size) or b""
            if len(chunk) < layout.name + layout.size:
                return None
            size = int.from_bytes(chunk[layout.name :], layout.order)
            end = position + size + (0 if layout.whole else len(chunk))
            if size < ENDLESS and end > local.size:
                return f"cut short: {local.size} of {end} bytes are there"
            if end <= position or chunk.startswith(_CONTENT) or end > local.size:
                return None
            position = -(-end // layout.padding) * layout.padding
    return None
