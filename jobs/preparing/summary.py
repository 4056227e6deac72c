"""The printed summary of `prepare`: clips and hours per split, labels per task, files with faults."""

from collections import Counter
from collections.abc import Mapping, Sequence

from cluster.console import Table, show
from cluster.errors import MediaError
from cluster.tables import SPLITS
from encoders.media import Probe
from fusion.tasks import Task
from jobs.preparing import probing, units
from jobs.preparing.adapter import Collected
from jobs.preparing.groups import Grouping

MOST_FAULTS_SHOWN = 5


def show_summary(
    clips: Sequence[units.Clip],
    collected: Collected,
    probes: Mapping[str, probing.Outcome],
    grouping: Grouping,
) -> None:
    """Print clips, hours and modalities per split, classes per task, and files with faults."""
    grid = Table(title=f"{collected.name} ({collected.licence or 'no licence given'})")
    for column in ("split", "clips", "hours", "groups", "video", "audio", "text", "units"):
        grid.add_column(column, justify="left" if column == "split" else "right")
    parts = {split: [c for c in clips if c["split"] == split] for split in (*SPLITS, None)}
    for split, part in {**parts, "all": list(clips)}.items():
        if part and not (split is None and len(part) == len(clips)):
            grid.add_row(split or "(none)", *_counts(part))
    show(grid)
    print(grouping)
    if grouping.warning and collected.tasks:
        print(grouping.warning)
    for name, task in collected.tasks.items():
        show(f"{name} ({task.kind}): {_labels(clips, name, task)}")
    kinds = Counter(_kind(probe) for probe in probes.values() if not isinstance(probe, MediaError))
    for kind, count in kinds.most_common(MOST_FAULTS_SHOWN):
        show(f"{count:,} files: {kind}")
    faults = [str(outcome) for outcome in probes.values() if isinstance(outcome, MediaError)]
    if faults:
        show(f"{len(faults)} files cannot be opened; encode gives their clips error rows:")
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


def _counts(part: Sequence[units.Clip]) -> list[str]:
    hours = sum(clip["duration_s"] or 0.0 for clip in part) / 3600
    kinds = [sum(clip[kind] is not None for clip in part) for kind in ("video", "audio", "text")]
    groups, cuts = (len({clip[key] for clip in part}) for key in ("group", "unit"))
    return [f"{len(part):,}", f"{hours:.2f}", *(f"{n:,}" for n in (groups, *kinds, cuts))]


def _labels(clips: Sequence[units.Clip], name: str, task: Task) -> str:
    values = [clip["labels"].get(name) for clip in clips]
    known = [value for value in values if value is not None]
    missing = f"; {len(values) - len(known):,} without" if len(known) < len(values) else ""
    if task.kind == "classification":
        counts = Counter(known)
        return ", ".join(f"{label} {counts[label]:,}" for label in task.classes) + missing
    if task.kind == "multilabel":
        sums = [int(sum(row[k] for row in known)) for k in range(len(task.classes))]
        pairs = zip(task.classes, sums, strict=True)
        return ", ".join(f"{label} {count:,}" for label, count in pairs) + missing
    mean = sum(known) / len(known) if known else float("nan")
    low, high = (min(known), max(known)) if known else (mean, mean)
    return f"{len(known):,} values, {low:g} to {high:g}, mean {mean:.3g}" + missing
