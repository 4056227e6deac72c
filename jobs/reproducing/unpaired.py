"""Classifiers that were trained on other data than the films they vote on: posters, songs and short texts.

No row of one table belongs to a row of another: each member is a dataset of its own below the root. A
picture is a film of one frame, so that its classifier reads the frames of a cut. Cuts of one song stay
together, as do twins by content; which pictures are stills of one film, the tables do not say.
"""

import csv
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from cluster import storage
from cluster.errors import LabelTableError, NotPreparedError
from jobs import encode, evaluate
from jobs.catalog import layout
from jobs.datasets import folder, video_sentiment
from jobs.preparing.adapter import files_below, read_rows
from jobs.reproducing import encoded
from jobs.reproducing.preset import Model, Preset, ReproduceConfig, Step
from jobs.reproducing.video_sentiment import METRICS, PUBLISHED, WHY_VOTES_LOSE, voting

ENCODERS = {"video": "clip_vit", "text": "xlm_roberta_base", "audio": "clap"}
TASK = "sentiment"
RUN = "member"
WORDS = {
    **dict.fromkeys(("0", "neg", "negative"), "negative"),
    **dict.fromkeys(("1", "pos", "positive"), "positive"),
}
"""What a table of labels may call a class."""


@dataclass(frozen=True, kw_only=True)
class MemberTable:
    """One of the three tables: a row an item."""

    file: str
    label: str
    """Column of the sentiment."""

    content: str
    """Column of the file or the text."""

    modality: str
    """What its classifier reads; also the column of a table of clips."""

    group: str = ""
    """Column of what must not straddle the split; empty: equal content."""


TABLES: Mapping[str, MemberTable] = {
    "image": MemberTable(
        file="image_new.csv", label="label", content="image", modality="video"
    ),
    "text": MemberTable(file="text.csv", label="label", content="text", modality="text"),
    "audio": MemberTable(
        file="final_v2_dataframe.csv",
        label="sentiment",
        content="file_path",
        modality="audio",
        group="track_name",
    ),
}  # fmt: skip
"""Member -> its table."""


def steps(config: ReproduceConfig) -> Sequence[Step]:
    """The cuts and their features; then each member's dataset, features, net, and votes on the cuts.

    Raises:
        NotPreparedError: a table is not there.
        LabelTableError: a table lacks a column, or has a label that is none of the two classes.
    """
    encoders = {**ENCODERS, **encoded.chosen(config, ENCODERS)}
    tables = {name: tables_of_clips(config, name) for name in TABLES}
    cuts = video_sentiment.Config(root=config.root, source=config.data)
    made = encoded.steps(config, "video_sentiment", cuts, list(encoders.values()))
    for name, table in TABLES.items():
        root = _root_of(config, name)
        clips = folder.Config(
            root=root,
            source=tables[name].rsplit("/", 1)[0],
            labels=tables[name],
            dataset_name=name,
            tasks={TASK: "classification"},
            classes={TASK: ",".join(video_sentiment.CLASSES)},
            split="60/20/20",
            seed=42,
        )
        encoder = encoders[table.modality]
        made += [
            Step(command="prepare folder", config=clips),
            Step(command="encode", config=_encoding(config, root, encoder)),
            Step(command="train", config=_training(config, root, encoder)),
            Step(
                command="evaluate",
                config=evaluate.Config(
                    root=root,
                    runs=(RUN,),
                    on=config.root,
                    predictions=votes_of(config, name),
                    resamples=config.resamples,
                ),
            ),
        ]
    return made


def models(config: ReproduceConfig) -> Sequence[Model]:
    """Every set of voters."""
    return [voting(name, [votes_of(config, m) for m in name.split("+")]) for name in PUBLISHED]


def votes_of(config: ReproduceConfig, member: str) -> str:
    """What a member says of the cuts."""
    return layout.reproduce_uri(storage.absolute(config.root), "votes", f"{member}.parquet")


def tables_of_clips(config: ReproduceConfig, member: str) -> str:
    """Write a member's table as `prepare folder` takes it; returns where."""
    files = files_below(config.data)
    table = TABLES[member]
    found = next((file for file in files if PurePosixPath(file).name == table.file), None)
    if found is None:
        raise NotPreparedError(
            f"--data {config.data}: no {table.file} with columns {table.content} and {table.label}"
        )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", table.modality, "group", TASK])
    writer.writerows(_clips(read_rows(found), table, files))
    uri = storage.join(_root_of(config, member), "labels", "clips.csv")
    storage.publish_bytes(text.getvalue().encode(), uri)
    return uri


def _clips(
    rows: Sequence[Mapping[str, Any]], table: MemberTable, files: Sequence[str]
) -> Iterator[list[str]]:
    """Name, content, group and class of each item; the name is made of the content, never of the row."""
    places = _by_file_name(files)
    seen: set[str] = set()
    for number, cells in enumerate(rows, 1):
        absent = [c for c in (table.content, table.label, table.group) if c and c not in cells]
        if absent:
            raise LabelTableError(f"{table.file}: no column {absent[0]!r}; came {', '.join(cells)}")
        content = str(cells[table.content] or "").strip()
        label = str(cells[table.label] or "").strip().lower().removesuffix(".0")
        if label not in WORDS:
            raise LabelTableError(
                f"{table.file}, row {number}: {table.label} {cells[table.label]!r}, expected one of "
                f"{', '.join(WORDS)}"
            )
        name = hashlib.sha256(f"{content}\n{label}".encode()).hexdigest()[:16]
        if not content or name in seen:
            continue
        seen.add(name)
        group = str(cells[table.group]).strip() if table.group else content.casefold()
        place = content if table.modality == "text" else places.get(_file_name(content), content)
        yield [name, place, hashlib.sha256(group.encode()).hexdigest()[:16], WORDS[label]]


def _file_name(path: str) -> str:
    """Of a path of this system or another: tables name files where their authors had them."""
    return PureWindowsPath(path).name


def _by_file_name(files: Sequence[str]) -> dict[str, str]:
    """Files by their name; a name that several have is none's."""
    found: dict[str, str] = {}
    twice: set[str] = set()
    for file in files:
        name = _file_name(file)
        twice |= {name} if name in found else set()
        found[name] = file
    return {name: file for name, file in found.items() if name not in twice}


def _root_of(config: ReproduceConfig, member: str) -> str:
    return layout.reproduce_uri(storage.absolute(config.root), "members", member)


def _encoding(config: ReproduceConfig, root: str, encoder: str) -> encode.Config:
    return encode.Config(
        root=root,
        encoders=(encoder,),
        store=config.store,
        tracking=config.tracking,
        session=config.session,
    )


def _training(config: ReproduceConfig, root: str, encoder: str) -> Any:
    net = config.trained(
        [encoder],
        "concat_mlp",
        {"preset": "clip_clap"},
        seeds=(0,),
        pool="mean",
        optimiser="sgd",
        lr=1e-2,
        weight_decay=0.0,
        schedule="plateau",
        patience=20,
        epochs=1000,
        loss="focal",
        loss_options={"gamma": 2.0},
    )
    return replace(net, root=root, run=RUN, tasks=(TASK,))


PRESET = Preset(
    title="Video sentiment: voting of classifiers of posters, songs and texts",
    source="https://github.com/ystan98/multimodal_vsa",
    dataset="video_sentiment",
    data="a folder of image_new.csv, final_v2_dataframe.csv and text.csv with their pictures and sounds, and "
    "of the film cuts with final_result.csv, which has their words",
    task=TASK,
    metrics=METRICS,
    why=(
        *WHY_VOTES_LOSE,
        "Its voters read embeddings of a larger model of pictures and texts in 1,024 dimensions; here public "
        "encoders stand in for it.",
        "Two sigmoids were trained for two classes of which exactly one holds, with a factor of the focal "
        "loss over the mean of the batch; here it is one softmax, and the factor is of each row.",
        "Its last epoch is judged in place of its best one, and its optimiser looks ahead (Lookahead).",
    ),
    columns={
        "reproduced": "the nets, rate, loss and stopping of the notebooks; songs on one side of the split; "
        "positive where every voter says positive.",
        "clean": "the same members under the default fusion of `affuse ensemble`, cross-fitted over films.",
    },
    steps=steps,
    models=models,
)
