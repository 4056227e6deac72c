"""Whether loss, monitor and the like suit the tasks of a run; asked before the run takes its name."""

import inspect
from collections.abc import Collection, Mapping

from cluster.errors import ConfigError
from cluster.settings import nearest
from fusion.losses import KINDS, OF_DISTRIBUTIONS, loss_function, losses_for
from fusion.metrics import metric, metrics_for
from fusion.nets import is_convex
from fusion.tasks import Task
from fusion.training.objective import DEFAULT_LOSS
from fusion.training.recipe import Recipe


def check_suited(
    net: str, recipe: Recipe, tasks: Mapping[str, Task], voted: Collection[str]
) -> None:
    """Refuse a recipe that has no meaning for the kinds of the tasks.

    Args:
        net: key of NETS; one that is solved reads neither loss nor monitor.
        recipe: how it is trained.
        tasks: what is predicted, the monitored one first.
        voted: tasks of which raters' votes are known.

    Raises:
        ConfigError: naming what suits.
    """
    for name in recipe.task_weights:
        if name not in tasks:
            raise ConfigError(
                f"--task-weights: no task that is trained is called {name!r}; {nearest(name, [*tasks])}"
            )
    if is_convex(net):
        return
    for name, task in tasks.items():
        _check_loss(recipe, name, task, voted)
    first, kind = next((name, task.kind) for name, task in tasks.items())
    if recipe.monitor != "loss":
        check_metric("--monitor", recipe.monitor, first, tasks[first], also=("loss",))
    if recipe.balanced and kind != "classification":
        raise ConfigError(
            f"--balanced draws classes equally often, and {first!r} is "
            f"{kind}, not classification: leave it out"
        )
    kinds = ", ".join(f"{name!r} is {task.kind}" for name, task in tasks.items())
    for flag, given in {
        "--class-weights": recipe.class_weights,
        "--label-smoothing": recipe.label_smoothing,
    }.items():
        if given and not any(task.kind == "classification" for task in tasks.values()):
            raise ConfigError(f"{flag} takes a classification, and {kinds}: leave it out")


def check_metric(
    flag: str, name: str, task_name: str, task: Task, *, also: Collection[str] = ()
) -> None:
    """Refuse a metric that judges another kind of task.

    Args:
        flag: that it was typed for.
        name: of the metric.
        task_name: of the task.
        task: that it is to judge.
        also: what may be typed besides.

    Raises:
        ConfigError: naming those that judge it.
    """
    if metric(name).kind != task.kind:
        raise ConfigError(
            f"{flag} {name} judges no {task.kind}, which the task {task_name!r} is: type {flag} "
            f"{either([*also, *metrics_for(task.kind)])}"
        )


def either(names: list[str]) -> str:
    """Names as an alternative.

    >>> either(["a", "b", "c"])
    'a, b or c'
    """
    return f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else names[0]


def _check_loss(recipe: Recipe, name: str, task: Task, voted: Collection[str]) -> None:
    loss = DEFAULT_LOSS[task.kind] if recipe.loss == "auto" else recipe.loss
    if task.kind not in KINDS[loss]:
        what = either([*KINDS[loss]]) if KINDS[loss] else "embeddings"
        raise ConfigError(
            f"--loss {loss} is for {what}, and the task {name!r} is {task.kind}: type "
            f"--loss {either(['auto', *losses_for(task.kind)])}, or --tasks of one kind"
        )
    if loss in OF_DISTRIBUTIONS and name not in voted:
        raise ConfigError(
            f"--loss {loss} takes raters' votes, and the dataset has none of {name!r}: type affuse "
            "prepare with --votes, or --loss cross_entropy"
        )
    known = [
        option
        for option, given in inspect.signature(loss_function(loss)).parameters.items()
        if given.kind is given.KEYWORD_ONLY and option not in ("mask", "weights")
    ]
    for option in recipe.loss_options:
        if option not in known:
            hint = nearest(option, known) if known else "it has none"
            raise ConfigError(
                f"--loss-options {option}: the loss {loss} of {name!r} has no such option; {hint}"
            )
