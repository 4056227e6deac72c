"""Caption a video with its predicted label and a bar for each class.

A clip that was scored in pieces (`name@12.0`) shows the label of each piece from its start on.

Reads:  a video file, and the scores of it (cluster.tables.SCORES: a Parquet file or a folder of them)
Writes: <clip>.annotated.mp4 (H.264, the sound as AAC) in one step, and <it>.config.json

Laptop:  affuse annotate clip.mp4 --scores data/own/scores/first
Choose:  affuse annotate clip.mp4 --scores scores.parquet --name dia0_utt3 --task emotion --out shown.mp4
"""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import tyro

from cluster import storage
from cluster.errors import ConfigError, NotPreparedError
from cluster.settings import Place, nearest
from cluster.tables import SCORES
from jobs.catalog.outputs import check_outputs, publish_outputs, record_of

PALETTE = (
    "#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#edc948", "#b07aa1", "#ff9da7",
    "#9c755f", "#bab0ac",
)  # fmt: skip
"""Colour of a class by its place in alphabetical order, so that it never changes within a film."""

MAX_SIDE = 1920
"""Longer side of the film that is written [px]; a 4K picture gains nothing from a caption."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which video, which scores of it, and what is drawn."""

    clip: Annotated[Place, tyro.conf.Positional, tyro.conf.arg(metavar="CLIP")]
    """Video file to caption."""

    scores: Place
    """Scores of the clip: a Parquet file, or a folder of them."""

    name: str | None = None
    """Name of the clip in the scores; by default the file's name, with or without its ending."""

    task: str | None = None
    """Task to show; by default the only one."""

    out: Place | None = None
    """File to write; by default `<clip>.annotated.mp4` beside the clip."""

    overwrite: bool = False
    """Replace a file that no earlier run made; an input is never replaced."""

    classes: int = 5
    """Largest number of bars; the most probable classes come first."""

    font: Place | None = None
    """TrueType file for labels beyond Latin letters."""

    def __post_init__(self) -> None:
        if self.classes < 1:
            raise ConfigError(f"classes is 1 or more; came {self.classes}")
        if self.out is not None and not self.out.endswith(".mp4"):
            raise ConfigError(f"out {self.out!r}: expected a name that ends in .mp4")


@dataclass(frozen=True, kw_only=True)
class Caption:
    """Title and bars that are shown from one second on."""

    start_s: float
    title: str
    bars: tuple[tuple[str, float], ...] = ()
    """Class and probability, the highest first."""

    order: Mapping[str, int]
    """Class -> its place in the palette."""


def main(config: Config) -> None:
    """Read the scores, draw them over every frame, publish the film."""
    clip, scores = storage.absolute(config.clip), storage.absolute(config.scores)
    out = storage.absolute(config.out or f"{clip.rsplit('.', 1)[0]}.annotated.mp4")
    record = record_of(out)
    check_outputs([out], record, sources=[clip, scores], overwrite=config.overwrite)
    rows = scored_rows(read_scores(scores), config)
    captions = captions_of(rows, config.classes)
    with storage.local_copy(clip) as path, tempfile.TemporaryDirectory() as folder:
        drawn = Path(folder, "film.mp4")
        frames = write_film(path, str(drawn), captions, config.font)
        publish_outputs(config, {out: drawn}, record)
    for caption in captions:
        print(f"from {caption.start_s:g} s: {caption.title}")
    print(f"wrote {out}: {frames} frames")


# ---- scores


def read_scores(uri: str) -> pa.Table:
    """The rows of a scores table.

    Raises:
        NotPreparedError: there is none.
        SchemaError: the files are another table.
    """
    files = [uri]
    if not uri.endswith(".parquet"):
        scores, name = os.path.split(uri.rstrip("/"))
        root = os.path.dirname(scores)
        if storage.exists(f"{root}/dataset.json") and storage.exists(f"{uri}/descriptor.json"):
            from jobs.scoring import versions  # heavy: it knows bundles

            return versions.read_scores(root, name)  # only the current ones, each once
        files = [storage.join(uri, name) for name in storage.names(uri, ".parquet")]
    if not files:
        raise NotPreparedError(f"{uri} holds no scores; type: affuse score ... first")
    parts = []
    for file in files:
        parquet = storage.open_parquet(file)
        SCORES.check(parquet.schema_arrow, where=file, renew="affuse score")
        parts.append(parquet.read())
    return pa.concat_tables(parts)


def scored_rows(table: pa.Table, config: Config) -> list[dict[str, Any]]:
    """The rows of one clip and task, its pieces in order of time.

    Raises:
        ConfigError: no such clip or task; the nearest is named.
    """
    rows = table.to_pylist()
    wanted = [config.name] if config.name else names_of_clip(storage.absolute(config.clip))
    known = sorted({row["name"] for row in rows})
    there = {part for name in known for part in (name, piece_of(name)[0])}
    name = next((name for name in wanted if name in there), None)
    found = [row for row in rows if name in (row["name"], piece_of(row["name"])[0])]
    if not found:
        raise ConfigError(
            f"the scores have no clip {wanted[-1]!r}; {nearest(wanted[-1], known[:200])}; type: --name"
        )
    tasks = sorted({row["task"] for row in found})
    task = config.task or tasks[0]
    if task not in tasks or (config.task is None and len(tasks) > 1):
        raise ConfigError(f"which task? type: --task NAME; scored are: {', '.join(tasks)}")
    chosen = [row for row in found if row["task"] == task]
    return sorted(chosen, key=lambda row: piece_of(row["name"])[1])


def names_of_clip(uri: str) -> list[str]:
    """Names that scores may use for a file: with or without ending and folders, the longest first."""
    whole = uri.split("/")
    stem = [*whole[:-1], whole[-1].rsplit(".", 1)[0]]
    tails = range(len(whole))
    return ["/".join(parts[count:]) for count in tails for parts in (whole, stem)]


def piece_of(name: str) -> tuple[str, float]:
    """The clip a piece was cut from and the second it starts at; a whole clip starts at 0."""
    parent, at, second = name.rpartition("@")
    try:
        return (parent, float(second)) if at else (name, 0.0)
    except ValueError:
        return name, 0.0


def captions_of(rows: Sequence[Mapping[str, Any]], classes: int) -> list[Caption]:
    """Turn each row into a title and bars."""
    names = sorted({name for row in rows for name, _ in row["probabilities"] or ()})
    order = {name: place for place, name in enumerate(names)}
    out = []
    for row in rows:
        bars = sorted(row["probabilities"] or (), key=lambda bar: -bar[1])[:classes]
        if row["status"] == "failed" or (row["value"] is None and not row["label"]):
            title = f"{row['task']}: not scored ({row['error'] or row['status']})"
        elif row["value"] is not None:
            title = f"{row['task']}: {row['value']:.2f}"
        else:
            sure = "" if row["confidence"] is None else f"  {row['confidence']:.0%}"
            title = f"{row['task']}: {', '.join(row['label'])}{sure}"
        out.append(
            Caption(start_s=piece_of(row["name"])[1], title=title, bars=tuple(bars), order=order)
        )
    return out


# ---- film


def write_film(source: str, target: str, captions: Sequence[Caption], font: str | None) -> int:
    """Copy a film with the captions drawn into it.

    Returns:
        Number of frames.

    Raises:
        ConfigError: the file has no picture, or cannot be opened.
    """
    import av

    try:
        container = av.open(source)
    except (av.FFmpegError, OSError) as error:
        raise ConfigError(f"{source}: not a film that can be opened: {error}") from error
    with container, av.open(target, "w", options={"movflags": "faststart"}) as output:
        if not container.streams.video:
            raise ConfigError(f"{source}: has no picture to draw into")
        picture = container.streams.video[0]
        film = output.add_stream("libx264", rate=picture.average_rate or 25)
        film.pix_fmt = "yuv420p"
        sound = container.streams.audio[0] if container.streams.audio else None
        voice = None if sound is None else output.add_stream("aac", rate=min(sound.rate, 48000))
        painter: Painter | None = None
        count = 0
        for packet in container.demux([s for s in (picture, sound) if s is not None]):
            for frame in decoded(packet):
                if isinstance(frame, av.AudioFrame):
                    output.mux(voice.encode(frame))  # type: ignore[union-attr]
                    continue
                image = upright(frame)
                if painter is None:
                    painter = Painter(image.shape[1], image.shape[0], captions, font)
                    film.width, film.height = painter.width, painter.height
                shown = painter.draw(image, frame.time or 0.0)
                new = av.VideoFrame.from_ndarray(shown, format="rgb24")
                new.pts, new.time_base = frame.pts, frame.time_base
                output.mux(film.encode(new))
                count += 1
        if count == 0:
            raise ConfigError(f"{source}: not a single frame could be read")
        output.mux(film.encode(None))
        if voice is not None:
            output.mux(voice.encode(None))
    return count


def decoded(packet: Any) -> Iterator[Any]:
    """The frames of a packet; a damaged one has none."""
    import av

    try:
        yield from packet.decode()
    except av.error.InvalidDataError:
        return


def upright(frame: Any) -> np.ndarray:
    """RGB as displayed, rotated where the file says so."""
    return np.rot90(frame.to_ndarray(format="rgb24"), k=frame.rotation // 90)


class Painter:
    """Draws a panel over the lower edge; each caption's panel is drawn once."""

    def __init__(
        self, width: int, height: int, captions: Sequence[Caption], font: str | None
    ) -> None:
        shrink = min(1.0, MAX_SIDE / max(width, height))
        # H.264 with 4:2:0 colour wants even sides.
        self.width = max(2, int(width * shrink) // 2 * 2)
        self.height = max(2, int(height * shrink) // 2 * 2)
        self.captions = captions
        self.size = max(9, min(self.width, self.height) // 22)
        self.font = load_font(font, self.size)
        self._panels: dict[int, Any] = {}

    def draw(self, image: np.ndarray, time_s: float) -> np.ndarray:
        """One frame, RGB height x width x 3, with what holds at `time_s` drawn into it."""
        from PIL import Image

        picture = Image.fromarray(np.ascontiguousarray(image))
        if picture.size != (self.width, self.height):
            picture = picture.resize((self.width, self.height))
        index = max(
            (i for i, caption in enumerate(self.captions) if caption.start_s <= time_s + 1e-6),
            default=0,
        )
        if index not in self._panels:
            self._panels[index] = self._panel(self.captions[index])
        panel = self._panels[index]
        picture.paste(panel, (0, self.height - panel.height), panel)
        return np.asarray(picture)

    def _panel(self, caption: Caption) -> Any:
        """A half-transparent strip: the title, and a bar for each class."""
        from PIL import Image, ImageDraw

        line = int(self.size * 1.5)
        height = min(self.height, line * (1 + len(caption.bars)) + self.size)
        panel = Image.new("RGBA", (self.width, height), (0, 0, 0, 170))
        draw = ImageDraw.Draw(panel)
        left, top = self.size // 2, self.size // 2
        draw.text((left, top), caption.title, font=self.font, fill="white")
        widest = max((draw.textlength(name, font=self.font) for name, _ in caption.bars), default=0)
        start = left + int(widest) + self.size
        room = max(1, self.width - start - self.size * 4)
        for row, (name, probability) in enumerate(caption.bars, 1):
            y = top + row * line
            draw.text((left, y), name, font=self.font, fill="white")
            colour = PALETTE[caption.order[name] % len(PALETTE)]
            draw.rectangle((start, y, start + room, y + self.size), outline="#888888")
            draw.rectangle((start, y, start + int(room * probability), y + self.size), fill=colour)
            draw.text((start + room + left, y), f"{probability:.0%}", font=self.font, fill="white")
        return panel


def load_font(path: str | None, size: int) -> Any:
    """The font that was named, or the one Pillow brings (Latin letters).

    Raises:
        ConfigError: not a font file.
    """
    from PIL import ImageFont

    if path is None:
        return ImageFont.load_default(size)
    try:
        return ImageFont.truetype(path, size)
    except OSError as error:
        raise ConfigError(f"font {path}: {error}; expected a TrueType file") from error
