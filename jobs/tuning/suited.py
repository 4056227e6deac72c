"""Whether what a search draws, and what it is judged by, suit its tasks."""

import dataclasses

from cluster.errors import ConfigError
from jobs.catalog.manifest import read_dataset
from jobs.catalog.tasks import pick_tasks
from jobs.training.input_names import check_option_names
from jobs.training.run import TrainConfig
from jobs.training.suited import check_metric, check_suited
from jobs.tuning.space import Space

OF_A_KIND = ("balanced", "class_weights", "label_smoothing", "loss", "monitor")
"""Fields that are for some kinds of tasks alone."""


def check_search(base: TrainConfig, space: Space, score: str | None) -> None:
    """Refuse what has no meaning for the kinds of the tasks, before the search takes its name.

    Args:
        base: the search's config of train.
        space: what is searched.
        score: metric of the first task that judges the trials; None: the default of its kind.

    Raises:
        ConfigError: naming what suits, or an input of an option that no set has.
    """
    sets = space.values_of("inputs", list(base.inputs))
    options = [*base.net_options.items(), ("pca", base.pca), *space.options_of_nets]
    check_option_names(base.root, sets, options)
    dataset = read_dataset(base.root)
    tasks = pick_tasks(dataset, base.tasks)
    if score is not None:
        check_metric("--score", score, *next(iter(tasks.items())))
    searched = {name: space.values_of(name, getattr(base, name)) for name in OF_A_KIND}
    first = {name: values[0] for name, values in searched.items()}
    # Options belong to a loss: a trial finds whether it takes them, where the loss is searched.
    of_loss = base.loss_options if searched["loss"] == [base.loss] else {}
    plain = dataclasses.replace(base, **first, loss_options=of_loss)
    for net in space.values_of("net", base.net):
        for name, values in searched.items():
            for value in values:
                one = dataclasses.replace(plain, **{name: value})
                try:
                    check_suited(net, one, tasks, dataset.votes)
                except ConfigError as error:
                    raise ConfigError(f"a trial of the search: {error}") from error
