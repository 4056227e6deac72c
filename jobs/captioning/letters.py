"""Fonts that have the letters of labels: of captions, and of the pictures of a report."""

import contextlib
import functools
from collections.abc import Sequence
from typing import Any

from cluster.errors import ConfigError

WIDER = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans CJK TC", "Source Han Sans SC",
    "Source Han Sans", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "PingFang SC",
    "Hiragino Sans", "Hiragino Sans GB", "Apple SD Gothic Neo", "Microsoft YaHei", "Yu Gothic",
    "Malgun Gothic", "Arial Unicode MS", "Noto Sans Devanagari", "Noto Sans Thai",
)  # fmt: skip
"""Fonts with letters that the first one lacks, where they are installed."""

PLAIN = "~"
"""The last of the letters that Pillow's own font has for certain: umlauts are boxes in it."""


def font_of(path: str | None, size: int, texts: Sequence[str] = ()) -> Any:
    """The font that was named, or one that has the letters; what it lacks is a box, and is said.

    Args:
        path: a font file; None: Pillow's own for ASCII, else the one of the report's pictures that
            lacks fewest.
        size: of the letters [px].
        texts: what will be written.

    Raises:
        ConfigError: not a font file.
    """
    from PIL import ImageFont

    letters = {letter for text in texts for letter in text if letter.isprintable()}
    if path is None and max(letters, default="") <= PLAIN:
        return ImageFont.load_default(size)
    chosen = min(
        _files() if path is None else [path], key=lambda file: len(_lacking(file, letters))
    )
    if lacking := sorted(_lacking(chosen, letters)):
        print(
            f"warning: {''.join(lacking[:20])}: boxes in the film, since its font lacks these letters; type: "
            "--font FILE.ttf, of a font that has them (the files beside the film have them)"
        )
    return ImageFont.truetype(chosen, size)


@functools.cache
def families() -> list[str]:
    """DejaVu Sans, which Matplotlib brings, and the wider fonts that are installed, be it since yesterday."""
    from matplotlib import font_manager

    manager = font_manager.fontManager
    listed = {font.fname for font in manager.ttflist}
    for path in set(font_manager.findSystemFonts()) - listed:
        with contextlib.suppress(OSError, RuntimeError):  # not a font after all
            manager.addfont(path)
    there = {font.name for font in manager.ttflist}
    return ["DejaVu Sans", *(name for name in WIDER if name in there)]


def _files() -> list[str]:
    """Font files of this machine, the one of most letters first."""
    from matplotlib.font_manager import findfont

    return [findfont(name) for name in families()]


def _lacking(path: str, letters: set[str]) -> set[str]:
    """Letters that a font has no picture of.

    Raises:
        ConfigError: not a font file.
    """
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(path)
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"font {path}: {error}; expected a TrueType file") from error
    return {letter for letter in letters if not font.get_char_index(ord(letter))}
