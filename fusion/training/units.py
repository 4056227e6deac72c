"""The units that a net learns the targets of regressions in."""

from torch import Tensor

from fusion.predictor import Predictor
from fusion.training.recipe import Recipe
from fusion.training.rows import Feed


def fit_units(predictor: Predictor, feed: Feed, train: Tensor, recipe: Recipe) -> None:
    """Fit mean and spread of the targets of some rows, unless they are to be learnt as they are.

    Args:
        predictor: whose units are set; the same rows give the same ones again.
        feed: that knows the targets.
        train: rows of the training part [row].
        recipe: how the net is trained.
    """
    if recipe.target_scale == "standard" and not predictor.net.raw_targets:
        predictor.units.fit(*feed.targets(train))
