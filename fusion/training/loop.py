"""Trains one net on one training part: plain torch, on one worker or many.

    loss = sum_tasks w_t . (sum_rows w_r l_tr) / (sum_rows w_r)  +  auxiliary losses of the net

Both sums run over all workers, so that ragged dialogues and short last steps weigh what they should and two
workers give the weights of one. Everything random is named by (seed, epoch, rank): an epoch can be started
again, and a run that was killed and goes on from its last epoch with as many workers ends with the weights of
an undisturbed one. Each worker draws the dropout and noise of its own rows, so that another number of workers
gives other draws, and equal weights only where nothing is drawn.

Shapes: batch, time, row, outputs.
"""

from collections.abc import Mapping

from fusion.predictor import Predictor
from fusion.tasks import Task
from fusion.training.course import Course, OnEpoch
from fusion.training.outcome import FittedNet, NotFiniteError
from fusion.training.recipe import Recipe
from fusion.training.rows import Feed, RowSplit, ViewFeed
from fusion.training.trainer import Trainer
from fusion.workers import Group

__all__ = [
    "Course",
    "Feed",
    "FittedNet",
    "Group",
    "NotFiniteError",
    "OnEpoch",
    "RowSplit",
    "ViewFeed",
    "fit",
]


def fit(
    predictor: Predictor,
    feed: Feed,
    rows: RowSplit,
    recipe: Recipe,
    *,
    tasks: Mapping[str, Task],
    group: Group | None = None,
    course: Course | None = None,
) -> FittedNet:
    """Train until `epochs` or until `monitor` stops getting better.

    Args:
        predictor: net behind its fitted scaler; trained in place.
        feed: where rows come from.
        rows: which of them train, and which choose the epoch.
        recipe: how.
        tasks: what is predicted; the first one is monitored.
        group: the workers; by default this one alone.
        course: seed, start and end; by default of seed 0 from the first epoch to the recipe's last.

    Raises:
        ValueError: no training rows, or a recipe that does not suit the tasks.
        NotFiniteError: a loss, weight or prediction that is not finite; nothing of it is kept as best.
    """
    if len(rows.train) == 0:
        raise ValueError("there are no training rows")
    group, course = group or Group(), course or Course()
    trainer = Trainer(predictor, feed, rows, recipe, tasks=tasks, course=course, group=group)
    if course.resume is not None:
        trainer.load(course.resume)
    stopped = False
    # Asked before an epoch and not after it: a state to go on from may be that of the last one.
    while not (stopped or trainer.done or trainer.epoch == course.last_epoch):
        record = trainer.run_epoch()
        stopped = course.on_epoch is not None and course.on_epoch(record, trainer.state)
    return trainer.finish(stopped=stopped)
