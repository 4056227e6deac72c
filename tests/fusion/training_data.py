"""A small made-up data set for the tests of training: clips of two modalities, learnable."""

import torch
from torch import Tensor

from fusion.batch import Batch, Steps
from fusion.predictor import Card, Predictor, build
from fusion.scaling import Scaler
from fusion.tasks import Task

TASKS = {
    "emotion": Task(kind="classification", classes=("a", "b", "c")),
    "arousal": Task(kind="regression"),
}
DIMS = {"audio": 4, "text": 6}


class MadeUp:
    """Clips whose class shows in both modalities."""

    def __init__(self, count: int = 60, steps: int = 5, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.target = torch.randint(3, (count,), generator=generator)
        self.value = self.target.float() + 0.1 * torch.randn(count, generator=generator)
        self.lengths = torch.randint(1, steps + 1, (count,), generator=generator)
        self.known = torch.rand(count, generator=generator) > 0.1
        self.values = {}
        for name, dim in DIMS.items():
            centre = torch.randn(3, dim, generator=generator)[self.target]
            noise = torch.randn(count, steps, dim, generator=generator)
            self.values[name] = centre.unsqueeze(1) + noise

    def batch(self, rows: Tensor) -> Batch:
        longest = int(self.lengths[rows].max())
        mask = torch.arange(longest) < self.lengths[rows].unsqueeze(1)
        targets, known = self.targets(rows)
        return Batch(
            inputs={n: Steps(v[rows, :longest], mask) for n, v in self.values.items()},
            clip_id=rows,
            index=rows,
            targets=targets,
            target_masks=known,
        )

    def targets(self, rows: Tensor):
        known = self.known[rows]
        targets = {"emotion": self.target[rows], "arousal": self.value[rows]}
        return targets, {"emotion": known, "arousal": torch.ones_like(known)}


def new_predictor(feed: MadeUp, train: Tensor, net: str = "concat_mlp", **options) -> Predictor:
    """A net with seeded weights behind a scaler fitted on the training rows."""
    torch.manual_seed(7)
    options = {"hidden": 16, "dropout": 0.0, **options}
    predictor = build(Card(net=net, config=options, tasks=TASKS, dims=DIMS))
    fitted = Scaler.fitted([feed.batch(train)], DIMS)
    predictor.scaler.load_state_dict(fitted.state_dict())
    return predictor
