"""Write on a video what a bundle reads in it: label, confidence and a bar for each class, over time.

The film is scored here, sentence by sentence where the bundle reads words, else window by window; or
the scores are those that `affuse score` wrote. A clip that was scored in pieces shows the label of each piece
while it lasts. The caption covers at most a fifth of the picture, or stands below one that is too small.
Where a bundle that reads faces scores the film here, each face has a grey box, the one that is read a yellow.

Reads:  a video file, and a bundle; or the scores of it (cluster.tables.SCORES: a Parquet file or a folder)
Writes: <clip>.annotated.mp4 (H.264, the sound as it is), .srt, .vtt and .json beside it, <it>.config.json

Laptop:  affuse annotate clip.mp4 --bundle data/own/bundles/best
Scored:  affuse annotate clip.mp4 --scores data/own/scores/first
Choose:  affuse annotate clip.mp4 --scores scores.parquet --name dia0_utt3 --task emotion --out shown.mp4
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
import tyro

from cluster import storage
from cluster.errors import ConfigError
from cluster.scratch import scratch_folder
from cluster.settings import NameOrPlace, Place, is_place, nearest
from jobs.captioning.captions import captions_of, piece_of
from jobs.captioning.film import Draw, has_sound, length_s, write_film
from jobs.captioning.letters import font_of
from jobs.captioning.subtitles import subtitles
from jobs.catalog.outputs import Content, check_outputs, publish_outputs, record_of
from jobs.scoring.scores_at import scores_at


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which video, which scores of it, and what is drawn."""

    clip: Annotated[Place, tyro.conf.Positional, tyro.conf.arg(metavar="CLIP")]
    """Video file to caption."""

    bundle: NameOrPlace | None = None
    """Bundle that scores the clip: a folder, or face_expression; without --scores that is the default."""

    by: Literal["auto", "clip", "window", "sentence"] = "auto"
    """What --bundle scores; auto: sentences where it reads words and the film has sound, else windows."""

    window_s: float = 5.0
    """Length of a window [s]."""

    step_s: float = 1.0
    """From the start of a window to that of the next [s]."""

    transcriber: str | None = None
    """Transcriber for the sentences, where the bundle brings none."""

    store: Place | None = None
    """Store of the weights; by default ~/.cache/affuse/store."""

    scores: Place | None = None
    """Scores of the clip: a file that `affuse score --out` wrote, or a folder of scores."""

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
    """TrueType file; by default a font of this machine that has the letters of the labels."""

    def __post_init__(self) -> None:
        if self.bundle is not None and self.scores is not None:
            raise ConfigError(
                "--bundle scores the clip, --scores are of it: leave one of them away"
            )
        if self.classes < 1:
            raise ConfigError(f"classes is 1 or more; came {self.classes}")
        if self.out is not None and not self.out.endswith(".mp4"):
            raise ConfigError(f"out {self.out!r}: expected a name that ends in .mp4")


def main(config: Config) -> None:
    """Score the film or read its scores, draw them over every frame, publish the film."""
    clip = storage.absolute(config.clip)
    out = storage.absolute(config.out or f"{clip.rsplit('.', 1)[0]}.annotated.mp4")
    beside = {suffix: f"{out.removesuffix('.mp4')}.{suffix}" for suffix in ("srt", "vtt", "json")}
    record, sources = record_of(out), [clip]
    if config.scores is not None:
        sources.append(storage.absolute(config.scores))
    check_outputs([out, *beside.values()], record, sources=sources, overwrite=config.overwrite)
    if config.font is not None:
        font_of(config.font, 12)  # refuses what is none, before the film is scored
    with storage.local_copy(clip) as path, scratch_folder() as folder:
        film_s = length_s(path)  # also refuses what is no film, before it is scored
        if config.scores is None:
            table, mark = scored(config, clip)
        else:
            table, mark = scores_at(sources[-1]), None
        captions = captions_of(scored_rows(table, config), config.classes)
        drawn = Path(folder, "film.mp4")
        frames = write_film(path, str(drawn), captions, config.font, mark)
        texts = subtitles(captions, film_s or length_s(str(drawn)) or 0.0)
        files: dict[str, Content] = {out: drawn, **{beside[name]: texts[name] for name in texts}}
        publish_outputs(config, files, record)
    for caption in captions:
        print(f"from {caption.start_s:g} s: {caption.title}")
    print(f"wrote {out}: {frames} frames; beside it .srt, .vtt and .json")


# ---- scores


def scored(config: Config, clip: str) -> tuple[pa.Table, Draw | None]:
    """The film scored by the bundle, in this process, and what marks the faces that it read.

    Raises:
        ConfigError: the bundle cannot score files, or reads no words where sentences are asked for.
    """
    from jobs.captioning.faces import face_boxes
    from jobs.scoring.by_piece import PieceScorer, clips_of_files, score_pieces  # heavy: torch
    from jobs.scoring.in_process import encoder_of, score_here
    from jobs.scoring.opening import UNTRAINED, open_bundle
    from jobs.scoring.pieces import PiecesConfig
    from jobs.scoring.scorer import Scorer
    from jobs.stream.decode import decoder_of
    from jobs.stream.job import DecodingConfig
    from jobs.stream.selection import chosen_store

    size = PiecesConfig(window_s=config.window_s, step_s=config.step_s)
    place = config.bundle or UNTRAINED
    bundle = open_bundle(place, "", config.transcriber, config.store)
    bundle.refuse_alone()
    beside = place.partition("/bundles/")[0] if is_place(place) else ""
    store = storage.absolute(chosen_store(config.store, beside))
    encoder, scorer = encoder_of([bundle], store, DecodingConfig()), Scorer(bundle)
    mark = face_boxes(bundle.encoders, store)
    if config.by == "clip":
        return score_here([clip], encoder, scorer), mark
    by = config.by
    if by == "auto":
        by = "sentence" if bundle.transcriber is not None and has_sound(clip) else "window"
    pieces = PieceScorer(encoder, [scorer], by, size)
    clips = clips_of_files([clip], decoder_of(encoder.decoding))
    return pa.concat_tables(score_pieces(clips, pieces)), mark


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
    return sorted(chosen, key=start_of)


def start_of(row: Mapping[str, Any]) -> float:
    """Where a piece of a clip begins [s]."""
    return piece_of(row["name"])[1] if row["start_s"] is None else float(row["start_s"])


def names_of_clip(uri: str) -> list[str]:
    """Names that scores may use for a file: with or without ending and folders, the longest first."""
    whole = uri.split("/")
    stem = [*whole[:-1], whole[-1].rsplit(".", 1)[0]]
    tails = range(len(whole))
    return ["/".join(parts[count:]) for count in tails for parts in (whole, stem)]
