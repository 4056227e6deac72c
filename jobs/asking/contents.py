"""What of a clip is shown to a model: words, sound and pictures as content parts of a message."""

import base64
import io
import wave
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from cluster.errors import ConfigError
from encoders.clip import Clip, FramePolicy, Needs
from encoders.media import Decoder
from jobs.catalog.features import read_transcripts
from jobs.catalog.manifest import read_manifest
from jobs.stream.decode import source_of

Shown = Literal["text", "audio", "frames"]

RATE_HZ = 16_000
LONGEST_TEXT = 4000
"""Characters of a clip's text that are shown."""

LONGEST_AUDIO_S = 60.0
FRAME_PX = 336
COLUMNS = (
    "clip_id", "video", "audio", "text", "words", "start_s", "end_s", "duration_s", "dialogue", "turn",
    "speaker", "split",
)  # fmt: skip

HAS: Mapping[Shown, str] = {"text": "text", "audio": "sound", "frames": "pictures"}
"""What a clip has of it, in words."""

Part = Mapping[str, Any]


def shown_rows(
    root: str, transcriber: str | None, *, with_test: bool = False
) -> dict[int, dict[str, Any]]:
    """Clip -> its row of the manifest, as far as a model may see it; no row of the test split by default.

    Args:
        root: of the dataset.
        transcriber: whose transcripts are the text of clips without one.
        with_test: those of the test split too.
    """
    table = read_manifest(root, COLUMNS)
    rows = {row["clip_id"]: row for row in table.to_pylist() if with_test or row["split"] != "test"}
    if transcriber is not None:
        heard = read_transcripts(root, transcriber)
        for clip, text in zip(heard["clip_id"].to_pylist(), heard["text"].to_pylist(), strict=True):
            if clip in rows:
                rows[clip]["text"] = text
    return rows


def has_shown(row: Mapping[str, Any], shown: Sequence[Shown]) -> bool:
    """Whether a clip's row of the manifest names any of what is shown; no file is opened."""
    has = {
        "text": bool(_cut(row["text"] or "")),
        "audio": row["audio"] is not None,
        "frames": row["video"] is not None,
    }
    return any(has[each] for each in shown)


def said_before(rows: Iterable[Mapping[str, Any]], count: int) -> dict[int, list[str]]:
    """Clip -> the last texts before it in its dialogue, each with its speaker; a reader of the past only."""
    if not count:
        return {}
    dialogues: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["dialogue"] is not None and row["turn"] is not None:
            dialogues.setdefault(row["dialogue"], []).append(row)
    found = {}
    for turns in dialogues.values():
        turns.sort(key=lambda row: row["turn"])
        lines = [f"{row['speaker'] or 'somebody'}: {_cut(row['text'] or '')}" for row in turns]
        for place, row in enumerate(turns):
            found[row["clip_id"]] = lines[max(0, place - count) : place]
    return found


class Shower:
    """Makes the content parts of clips; decodes where sound or pictures are shown.

    Args:
        shown: what a model is shown.
        frames: number of pictures, spread evenly.
        decoder: what reads media.
    """

    def __init__(self, shown: Sequence[Shown], frames: int, decoder: Decoder) -> None:
        self.shown, self._decoder = shown, decoder
        self._policy = FramePolicy(kind="even", count=frames, size=FRAME_PX)
        self._needs = Needs(
            rates_hz=frozenset([RATE_HZ] if "audio" in shown else []),
            frames=frozenset([self._policy] if "frames" in shown else []),
        )

    def parts(self, row: Mapping[str, Any], before: Sequence[str]) -> list[Part]:
        """What is shown of a clip; nothing where it has none of it.

        Raises:
            MediaError: its file cannot be decoded.
        """
        text = _cut(row["text"] or "") if "text" in self.shown else ""
        found: list[Part] = []
        if self._needs != Needs():
            decoded = self._decoder.decode(source_of(row), self._needs)
            found += [*self._pictures(decoded.clip), *_sound(decoded.clip)]
            if not text and not found and decoded.faults:
                raise next(iter(decoded.faults.values()))
        if not text and not found:
            return []
        said = [f"What was said before:\n{chr(10).join(before)}"] if before and text else []
        said += [f"What is said in the clip: {text}"] if text else []
        return [*found, *({"type": "text", "text": each} for each in said)]

    def _pictures(self, clip: Clip) -> list[Part]:
        if self._policy not in clip.frames:
            return []
        return [_picture(pixels) for pixels in clip.frames[self._policy].pixels]


def check_shown(shown: Sequence[Shown], frames: int) -> None:
    """Refuse to show nothing.

    Raises:
        ConfigError: nothing, or no frame.
    """
    if not shown or len(set(shown)) < len(shown):
        raise ConfigError(f"--show {' '.join(shown)}: expected some of text, audio and frames")
    if not 1 <= frames <= 64:
        raise ConfigError(f"--frames {frames}: expected 1 to 64")


def _cut(text: str) -> str:
    return " ".join(text.split())[:LONGEST_TEXT]


def _picture(pixels: np.ndarray) -> Part:
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=85)
    data = base64.b64encode(content.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{data}"}}


def _sound(clip: Clip) -> list[Part]:
    samples = clip.waveforms.get(RATE_HZ)
    if samples is None or not len(samples):
        return []
    samples = samples[: round(LONGEST_AUDIO_S * RATE_HZ)]
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    data = base64.b64encode(content.getvalue()).decode()
    return [{"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}]
