"""How a net is trained: every choice that changes its weights, none that says where."""

from dataclasses import dataclass, field
from typing import Literal

from fusion.losses import loss_function
from fusion.metrics import metric


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a net is trained; nothing in it says where."""

    epochs: int = 50
    """Largest number of passes over the training part."""

    patience: int = 10
    """Epochs without a better `monitor` before training stops; 0: all epochs run, and the last counts."""

    monitor: str = "loss"
    """Figure that chooses the epoch: ``loss``, or a metric of the first task, on the validation rows."""

    batch_size: int = 32
    """Rows of one optimiser step, over all workers."""

    accumulation_steps: int = 1
    """Micro-batches into which a worker cuts its rows of a step, to save memory; the step stays the same."""

    optimiser: Literal["adam", "adamw", "sgd"] = "adamw"
    """Optimiser; sgd has a momentum of 0.9."""

    lr: float = 1e-3
    """Learning rate."""

    weight_decay: float = 1e-4
    """Weight decay: decoupled for adamw, an L2 term for the others."""

    lr_factors: dict[str, float] = field(default_factory=dict)
    """Factor on `lr` for the parameters whose names start so, e.g. subnets.text=0.1."""

    schedule: Literal["constant", "cosine", "plateau"] = "constant"
    """Course of the learning rate. cosine: warm-up, then down to zero at the last epoch. plateau: divided by
    ten after `plateau` epochs."""

    warmup: float = 0.1
    """Share of the steps that warm up (cosine) [0..1]."""

    plateau: int = 5
    """Epochs without a better `monitor` before the learning rate falls (plateau)."""

    clip_norm: float = 1.0
    """Largest norm of the gradient of all parameters; 0: no limit."""

    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format of the forward pass, by autocast; weights stay float32."""

    loss: str = "auto"
    """Name of the loss; auto: cross_entropy, bce or l1 by the kind of task. For classification:
    cross_entropy, focal, kl; multilabel: bce; regression: ccc, huber, l1, mse."""

    loss_options: dict[str, float] = field(default_factory=dict)
    """Options of the loss, e.g. gamma=2."""

    target_scale: Literal["standard", "none"] = "standard"
    """Scale of the values of regressions. standard: less their mean and over their spread in the training
    part, so that their unit does not matter; none: as they are, as most published code learns them, and
    self_mm and nets with squash in any case."""

    task_weights: dict[str, float] = field(default_factory=dict)
    """Weight of each task in the loss; 1 where it is not named."""

    label_smoothing: float = 0.0
    """Share of the target that is spread over all classes, in classifications [0..1)."""

    class_weights: bool = False
    """Weight each class by rows / (classes x its rows), counted in the training part."""

    balanced: bool = False
    """Draw rows of every class of the first task equally often (clip nets)."""

    modality_dropout: float = 0.0
    """Probability that a modality of a row is hidden in training [0..1)."""

    feature_noise: float = 0.0
    """Standard deviation of the noise on scaled features in training."""

    mixup: float = 0.0
    """Mix rows with others by a share drawn from Beta(mixup, mixup); 0: no mixing (clip nets)."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulation_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, came {getattr(self, name)}")
        if self.lr <= 0 or self.weight_decay < 0 or not 0 <= self.warmup < 1:
            raise ValueError(
                f"expected lr > 0, weight_decay >= 0, warmup in [0, 1); came {self.lr}, "
                f"{self.weight_decay}, {self.warmup}"
            )
        if self.mixup < 0:
            raise ValueError(f"mixup: expected 0 or more, came {self.mixup}")
        if self.monitor != "loss":
            metric(self.monitor)
        if self.loss != "auto":
            loss_function(self.loss)
