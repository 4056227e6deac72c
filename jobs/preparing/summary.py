"""The printed summary of `prepare`: clips and hours per split, labels per task, files with faults."""

import json
import math
from collections import Counter
from collections.abc import Mapping

import pyarrow as pa

from cluster.console import Table, show
from cluster.errors import MediaError
from cluster.tables import SPLITS
from encoders.media import Probe
from fusion.tasks import Task
from jobs.preparing import probing
from jobs.preparing.adapter import Collected
from jobs.preparing.groups import Grouping
from jobs.preparing.row_tables import Shape
from jobs.preparing.workplace import Workplace

MOST_FAULTS_SHOWN = 5

COUNTS = (
    "count(*), coalesce(sum(duration_s), 0) / 3600, count(video) - count(unseen.uri), "
    "count(audio) - count(unheard.uri), count(text)"
)
"""Files that cannot be opened are counted as no modality: nobody knows what they hold."""

UNOPENED = pa.schema([("uri", pa.string()), ("start", pa.int64())])


def show_summary(
    place: Workplace,
    collected: Collected,
    shape: Shape,
    probes: Mapping[str, probing.Outcome],
    grouping: Grouping,
) -> None:
    """Print clips, hours and modalities per split, classes per task, and files with faults."""
    grid = Table(title=f"{collected.name} ({collected.licence or 'no licence given'})")
    for column in ("split", "clips", "hours", "groups", "video", "audio", "text", "units"):
        grid.add_column(column, justify="left" if column == "split" else "right")
    lay_units(place)
    place.add("unopened", unopened(probes))
    parts = counted(place, "split")
    for split in (*SPLITS, None):
        if split in parts and not (split is None and len(parts) == 1):
            grid.add_row(split or "(none)", *_cells(parts[split]))
    grid.add_row("all", *_cells(counted(place, "'all'")["all"]))
    show(grid)
    print(grouping)
    if grouping.warning and shape.tasks:
        print(grouping.warning)
    for k, (name, task) in enumerate(shape.tasks.items()):
        show(f"{name} ({task.kind}): {_labels(place, f'label{k}', task)}")
        if task.kind == "multilabel" and (missing := _none_are_none(place, f"label{k}")):
            show(
                f"{name}: {missing:,} clips are unlabelled, and none has none of the labels; in a table an "
                "empty cell is unlabelled, none of them is written |"
            )
    show_files(probes)


def lay_units(place: Workplace) -> None:
    """Fill `lies_in`, which splits have clips in which units, from a range of the clips at a time."""
    place.run("create table lies_in (split varchar, unit varchar)")
    for inside in place.ranges("seq", "clips"):
        place.run(f"insert into lies_in select distinct split, unit from planned where {inside}")


def unopened(probes: Mapping[str, probing.Outcome]) -> pa.Table:
    """Files, or members of shards, that cannot be opened."""
    keys = (json.loads(key) for key, found in probes.items() if isinstance(found, MediaError))
    places = {(uri, -1 if offset is None else offset) for uri, offset, *_ in keys}
    rows = [{"uri": uri, "start": start} for uri, start in sorted(places)]
    return pa.Table.from_pylist(rows, UNOPENED)


def counted(place: Workplace, part: str) -> dict[str | None, tuple[float, ...]]:
    """Clips, hours, groups, clips with video, audio and text, and units of each part.

    What is counted once each is grouped before: of ten million a `count(distinct)` does not go to disk.

    Args:
        place: with `parted`, `lies_in` and `unopened`.
        part: SQL for the part that a clip is of.
    """
    once = "select part, count(*) from (select distinct {part} as part, {of}) group by part"
    groups = dict(
        place.run(once.format(part=part, of='"group" from parted where "group" is not null'))
    )
    units = dict(place.run(once.format(part=part, of="unit from lies_in")))
    joins = " ".join(
        f"left join unopened as {lacks} on {track}.uri = {lacks}.uri "
        f'and coalesce({track}."offset", -1) = {lacks}.start'
        for track, lacks in (("video", "unseen"), ("audio", "unheard"))
    )
    rows = place.run(f"select {part} as part, {COUNTS} from parted {joins} group by part")
    return {
        name: (clips, hours, groups.get(name, 0), *media, units[name])
        for name, clips, hours, *media in rows
    }


def show_files(probes: Mapping[str, probing.Outcome]) -> None:
    """Print which kinds of files there are, and which cannot be opened."""
    kinds = Counter(_kind(probe) for probe in probes.values() if not isinstance(probe, MediaError))
    for kind, count in kinds.most_common(MOST_FAULTS_SHOWN):
        show(f"{count:,} files: {kind}")
    faults = [str(outcome) for outcome in probes.values() if isinstance(outcome, MediaError)]
    if faults:
        show(
            f"{len(faults)} files cannot be opened, and are counted as no modality; encode gives their clips "
            "error rows:"
        )
        for line in faults[:MOST_FAULTS_SHOWN]:
            show(f"  {line}")
        if len(faults) > MOST_FAULTS_SHOWN:
            show(f"  and {len(faults) - MOST_FAULTS_SHOWN} more")


def _kind(probe: Probe) -> str:
    picture = f"{probe.video_codec} {probe.width} x {probe.height}, {probe.fps or 0:.3g} frames/s"
    sound = f"{probe.audio_codec} {probe.rate_hz} Hz, {probe.channels} channels"
    parts = [
        picture if probe.has_video else "no pictures",
        sound if probe.has_audio else "no sound",
    ]
    return "; ".join(parts)


def _cells(counts: tuple[float, ...]) -> list[str]:
    clips, hours, *others = counts
    return [f"{clips:,}", f"{hours:.2f}", *(f"{n:,}" for n in others)]


def _none_are_none(place: Workplace, column: str) -> int:
    """How many clips are unlabelled, where no clip has none of the labels; else 0."""
    query = f"select count(*) - count({column}), count(*) filter (where list_sum({column}) = 0) from parted"
    missing, none = place.run(query)[0]
    return 0 if none else int(missing)


def _labels(place: Workplace, column: str, task: Task) -> str:
    known, missing = place.run(f"select count({column}), count(*) - count({column}) from parted")[0]
    without = f"; {missing:,} without" if missing else ""
    if task.kind == "classification":
        counts = dict(place.run(f"select {column}, count(*) from parted group by all"))
        return ", ".join(f"{label} {counts.get(label, 0):,}" for label in task.classes) + without
    if task.kind == "multilabel":
        return _several(place, column, task, known) + without
    facts = place.run(f"select min({column}), max({column}), avg({column}) from parted")[0]
    low, high, mean = (float("nan") if fact is None else fact for fact in facts)
    # As many digits as tell the ends apart, of values far from zero too.
    apart = max(abs(low), abs(high)) / (high - low) if high > low else 1.0
    digits = min(17, 6 + max(0, math.ceil(math.log10(apart))))
    said = ", ".join([f"{low:.{digits}g} to {high:.{digits}g}", f"mean {mean:.{digits - 3}g}"])
    return f"{known:,} values, {said}" + without


def _several(place: Workplace, column: str, task: Task, known: int) -> str:
    """How many clips have each label, and of how many of the labelled ones it is unknown (nan)."""
    if not task.classes:
        return "no clip has a label"
    sums: list[str] = []
    for k in range(len(task.classes)):
        label = f"{column}[{k + 1}]"
        inside = f"filter (where not isnan({label}))"
        sums += [f"coalesce(sum({label}) {inside}, 0)", f"count({label}) {inside}"]
    found = [int(value) for value in place.run(f"select {', '.join(sums)} from parted")[0]]
    parts = []
    for label, count, told in zip(task.classes, found[::2], found[1::2], strict=True):
        unknown = f" ({known - told:,} unknown)" if told < known else ""
        parts.append(f"{label} {count:,}{unknown}")
    return ", ".join(parts)
