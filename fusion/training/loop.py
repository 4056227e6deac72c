"""Trains one net on one training part: plain torch, on one worker or many.

    loss = sum_tasks w_t . (sum_rows w_r l_tr) / (sum_rows w_r)  +  auxiliary losses of the net

Both sums run over all workers, so that ragged dialogues and short last steps weigh what they should and two
workers give the weights of one. Everything random is named by (seed, epoch, rank): an epoch can be started
again, and a run that was killed and goes on from its last epoch ends with the weights of an undisturbed one.

Shapes: batch, time, row, outputs.
"""

from collections.abc import Callable, Mapping

from torch import Tensor

from fusion.predictor import Predictor
from fusion.tasks import Task
from fusion.training.outcome import Fitted, NotFiniteError
from fusion.training.recipe import Recipe
from fusion.training.rows import Feed, ViewFeed
from fusion.training.trainer import Trainer
from fusion.workers import Group

__all__ = ["Feed", "Fitted", "Group", "NotFiniteError", "OnEpoch", "ViewFeed", "fit"]

OnEpoch = Callable[[dict[str, float], Callable[[], bytes]], bool]
"""(record of the epoch, function that gives the state to go on from) -> True to stop."""


def fit(
    predictor: Predictor,
    feed: Feed,
    *,
    tasks: Mapping[str, Task],
    train: Tensor,
    valid: Tensor,
    recipe: Recipe,
    seed: int = 0,
    group: Group | None = None,
    resume: bytes | None = None,
    on_epoch: OnEpoch | None = None,
    last_epoch: int | None = None,
) -> Fitted:
    """Train until `epochs` or until `monitor` stops getting better.

    Args:
        predictor: net behind its fitted scaler; trained in place.
        feed: where rows come from.
        tasks: what is predicted; the first one is monitored.
        train: rows to fit on [row].
        valid: rows that choose the epoch [row]; empty: the last epoch counts.
        recipe: how.
        seed: names everything random.
        group: the workers; by default this one alone.
        resume: the state an `on_epoch` gave, to go on after that epoch.
        on_epoch: called after each epoch on every worker, with equal records.
        last_epoch: the last one, where the recipe (and its schedule) would go on.

    Raises:
        ValueError: no training rows, or a recipe that does not suit the tasks.
        NotFiniteError: a loss, weight or prediction that is not finite; nothing of it is kept as best.
    """
    if len(train) == 0:
        raise ValueError("there are no training rows")
    trainer = Trainer(predictor, feed, tasks, train, valid, recipe, seed, group or Group())
    if resume is not None:
        trainer.load(resume)
    stopped = False
    # Asked before an epoch and not after it: a state to go on from may be that of the last one.
    while not (stopped or trainer.done or trainer.epoch == last_epoch):
        record = trainer.run_epoch()
        stopped = on_epoch is not None and on_epoch(record, trainer.state)
    return trainer.finish(stopped=stopped)
