"""Pending work of an encode command: units that a table lacks, failed clips, units that came back."""

from collections.abc import Sequence
from dataclasses import replace

from cluster.unit_tables import failed_rows, published
from encoders.spec import Descriptor
from jobs.catalog.compaction import recall
from jobs.catalog.layout import features_uri, transcripts_uri
from jobs.catalog.manifest import UnitRef
from jobs.stream.job import Todo, UnitTask, Work


def table_uris(root: str, work: Work) -> list[tuple[Descriptor, str]]:
    """Every table of a command, with the encoder or transcriber that fills it."""
    found = [(item, features_uri(root, item.folder)) for item in work.descriptors]
    if work.transcriber is not None:
        found.append((work.transcriber, transcripts_uri(root, work.transcriber.folder)))
    return found


def missing_tasks(root: str, work: Work, refs: Sequence[UnitRef]) -> list[UnitTask]:
    """Units with at least one table that has no file for their present version."""
    done = {folder: published(features_uri(root, folder)) for folder in work.by_folder}
    transcriber = work.transcriber
    transcribed = (
        set() if transcriber is None else published(transcripts_uri(root, transcriber.folder))
    )
    tasks = []
    for ref in refs:
        missing = tuple(
            folder
            for folder, item in work.by_folder.items()
            if ref.version(item.reads) not in done[folder]
        )
        transcribe = transcriber is not None and ref.version(transcriber.reads) not in transcribed
        if missing or transcribe:
            todo = Todo(encoders=missing, transcribe=transcribe)
            tasks.append(UnitTask(ref=ref, todo=todo))
    return tasks


def recall_former(root: str, work: Work, refs: Sequence[UnitRef]) -> None:
    """Take back what an earlier command encoded of versions that left the manifest and are there again."""
    back = max(
        recall(uri, {ref.version(item.reads) for ref in refs})
        for item, uri in table_uris(root, work)
    )
    if back:
        print(f"{back} units that had left the manifest are there again, and their rows with them")


def tasks_to_mend(
    root: str, work: Work, refs: Sequence[UnitRef], missing: Sequence[UnitTask]
) -> list[UnitTask]:
    """Missing units, and clips with failed rows in tables that are there."""
    failed = _failed(root, work, refs)
    lacking = {task.ref.unit: task for task in missing}
    tasks, count = [], 0
    for ref in refs:
        clips = set().union(*(units.get(ref.unit, ()) for units in failed.values()))
        task = lacking.get(ref.unit)
        if clips:
            count += len(clips)
            absent = task.todo if task else Todo(encoders=(), transcribe=False)
            transcriber = work.transcriber
            todo = Todo(
                encoders=tuple(
                    folder
                    for folder in work.by_folder
                    if ref.unit in failed[folder] or folder in absent.encoders
                ),
                transcribe=(transcriber is not None and ref.unit in failed[transcriber.folder])
                or absent.transcribe,
            )
            clips_to_do = () if task else tuple(sorted(clips))
            task = UnitTask(ref=ref, todo=todo, clips=clips_to_do, mend=True)
        if task is not None:
            tasks.append(task)
    print(f"{count} clips with failed rows are encoded again; the other rows stay")
    return tasks


def counted_before(
    root: str, work: Work, refs: Sequence[UnitRef], tasks: Sequence[UnitTask]
) -> tuple[int, int]:
    """Clips that are not to do any more, and how many of them failed."""
    todo = {task.ref.unit: task for task in tasks}
    failed: dict[str, set[int]] = {}
    for found in _failed(root, work, refs).values():
        for unit, clips in found.items():
            failed.setdefault(unit, set()).update(clips)
    count = 0
    for unit, clips in failed.items():
        if unit not in todo:
            count += len(clips)
        elif todo[unit].clips:
            count += len(clips - set(todo[unit].clips))
    done = sum(ref.num_clips for ref in refs) - sum(task.num_clips for task in tasks)
    return done, count


def _failed(root: str, work: Work, refs: Sequence[UnitRef]) -> dict[str, dict[str, set[int]]]:
    """Folder of each table -> current units with failed rows -> the clips of those rows."""
    return {
        item.folder: failed_rows(uri, {ref.version(item.reads) for ref in refs})
        for item, uri in table_uris(root, work)
    }


def restricted(
    work: Work, tasks: Sequence[UnitTask], names: Sequence[str]
) -> tuple[Work, list[UnitTask]]:
    """The part of a job that concerns some encoders.

    A transcriber outside, or with nothing to do, is not loaded: it has published before.
    """
    kept = {item.folder: item for item in work.descriptors if item.base.folder in names}
    among = work.transcriber is not None and work.transcriber.folder in names
    part_tasks = []
    for task in tasks:
        todo = Todo(
            encoders=tuple(folder for folder in task.todo.encoders if folder in kept),
            transcribe=task.todo.transcribe and among,
        )
        if todo.encoders or todo.transcribe:
            part_tasks.append(replace(task, todo=todo))
    part = replace(
        work,
        descriptors=tuple(kept.values()),
        transcribes=any(task.todo.transcribe for task in part_tasks),
    )
    return part, part_tasks


def in_order(passes: Sequence[Sequence[str]], work: Work) -> list[Sequence[str]]:
    """The passes of a plan, that of the transcriber first: text encoders of other passes read its text."""
    transcriber = None if work.transcriber is None else work.transcriber.folder
    return sorted(passes, key=lambda names: transcriber not in names)
