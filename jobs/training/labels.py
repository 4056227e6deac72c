"""Check that there is something to learn: more than one label among the training rows."""

from collections.abc import Mapping, Sequence

import numpy as np

from cluster.errors import ConfigError
from fusion.tasks import Task
from jobs.training.feeds import Clips
from jobs.training.parts import Part, Split, is_known


def check_labels(
    clips: Clips, tasks: Mapping[str, Task], splits: Sequence[tuple[Part, Split]]
) -> None:
    """Refuse tasks with one label only, and warn of parts of a run that have one only.

    Args:
        clips: with their labels.
        tasks: what is learned.
        splits: every part of the run with its rows by role.

    Raises:
        ConfigError: a part has no label to train on, or a task has one answer only in all parts.
    """
    known = {name: is_known(clips.known[name]) for name in tasks}
    for part, split in splits:
        if not any((split.train & flags).any() for flags in known.values()):
            raise ConfigError(
                f"{part.title}: none of its {int(split.train.sum())} training rows has a label of "
                f"{', '.join(tasks)}; type other --folds, or label more clips and: affuse prepare"
            )
        if split.valid.any() and not any((split.valid & f).any() for f in known.values()):
            print(
                f"{part.title}: none of the {int(split.valid.sum())} rows that choose the epoch has a "
                "label; its last epoch counts"
            )
    for name, task in tasks.items():
        same = {
            part.title: answer
            for part, split in splits
            if (answer := only_answer(clips, name, task, split.train & known[name])) is not None
        }
        if same and len(same) == len({part.title for part, _ in splits}):
            raise ConfigError(
                f"task {name!r}: all labels of the rows to train on are {_shown(next(iter(same.values())))}; "
                "there is nothing to tell apart: type other --tasks, or label clips of another kind"
            )
        for title, answer in same.items():
            print(
                f"warning: {title}: all its training rows have {_shown(answer)} as label of {name!r}"
            )


def only_answer(clips: Clips, name: str, task: Task, rows: np.ndarray) -> str | float | None:
    """The one label of a task among some rows; None where there are none, several or lists of them."""
    if task.kind == "multilabel" or not rows.any():
        return None
    answers = np.unique(clips.targets[name].numpy()[rows])
    if len(answers) > 1:
        return None
    return task.classes[int(answers[0])] if task.kind == "classification" else float(answers[0])


def _shown(answer: str | float) -> str:
    return repr(answer) if isinstance(answer, str) else f"{answer:.6g}"
