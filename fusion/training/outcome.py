"""What comes of a training: a net, or numbers that are none."""

from dataclasses import dataclass

from fusion.predictor import Predictor


@dataclass(frozen=True, kw_only=True)
class FittedNet:
    """What came of it."""

    predictor: Predictor
    """With the weights of the best epoch, in eval mode."""

    best_epoch: int
    """Counted from 1."""

    history: list[dict[str, float]]
    """One record an epoch."""

    stopped: bool
    """A callback asked to stop."""


class NotFiniteError(FloatingPointError):
    """Training left the finite numbers.

    Args:
        epoch: in which; counted from 1.
        lr: its learning rate.
        what: is not finite.
    """

    def __init__(self, epoch: int, lr: float, what: str) -> None:
        super().__init__(f"{what} is not finite in epoch {epoch} at learning rate {lr:g}")
        self.epoch, self.lr, self.what = epoch, lr, what

    def __reduce__(self) -> tuple[type["NotFiniteError"], tuple[int, float, str]]:
        return (NotFiniteError, (self.epoch, self.lr, self.what))
