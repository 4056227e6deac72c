"""Captions as files of their own: SubRip and WebVTT for players, JSON for programs."""

import json
from collections.abc import Sequence

from jobs.captioning.captions import Caption

SHARES = 3
"""Classes that a subtitle names."""


def subtitles(captions: Sequence[Caption], length_s: float) -> dict[str, bytes]:
    """Suffix -> content of the file.

    Args:
        captions: in order of time.
        length_s: of the film, where the last caption may end [s].
    """
    spans = [
        (c, c.start_s, min(length_s, length_s if c.end_s is None else c.end_s)) for c in captions
    ]
    spans = [span for span in spans if span[2] > span[1]]
    srt = [
        f"{number}\n{_clock(start, ',')} --> {_clock(end, ',')}\n{_text(caption)}\n"
        for number, (caption, start, end) in enumerate(spans, 1)
    ]
    vtt = [
        f"{_clock(start, '.')} --> {_clock(end, '.')}\n{_escaped(_text(caption))}\n"
        for caption, start, end in spans
    ]
    rows = [
        {
            **{name: value for name, value in caption.row.items() if name != "clip_id"},
            "probabilities": dict(caption.row["probabilities"] or ()),
            "shown_from_s": start,
            "shown_to_s": end,
        }
        for caption, start, end in spans
    ]
    return {
        "srt": "\n".join(srt).encode(),
        "vtt": "\n".join(["WEBVTT\n", *vtt]).encode(),
        "json": json.dumps({"length_s": length_s, "captions": rows}, indent=1).encode(),
    }


def _text(caption: Caption) -> str:
    shares = ", ".join(f"{name} {share:.0%}" for name, share in caption.bars[:SHARES])
    # An empty line would end the subtitle.
    return " ".join(caption.title.split()) + (f"\n{' '.join(shares.split())}" if shares else "")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _clock(seconds: float, point: str) -> str:
    """Hours, minutes, seconds and thousandths.

    >>> _clock(3661.5, ",")
    '01:01:01,500'
    """
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{point}{thousandths:03}"
