"""Do features know the labels of the training split? A linear probe, by group k-fold inside each split.

Features that were fitted on a split's labels (a fine-tuned encoder, published utterance features) separate
that split far better than any other, and everything that is validated inside it looks wonderful. The
same probe is cross-validated inside train and inside the other split, on equally many rows; a gap beyond
its 99 % interval over groups and beyond 5 points is a leak.

Shapes: row, feature, class.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from fusion.metrics import metric as find_metric
from fusion.percentiles import percentile_interval
from fusion.statistics import Groups, resampled
from fusion.tasks import Kind

GAP = 0.05
LEVEL = 0.99
STEPS = 100


@dataclass(frozen=True, kw_only=True)
class ProbedSplit:
    """One split of the data."""

    features: Float[Tensor, "row feature"]
    target: Shaped[Tensor, " row"]
    groups: Groups


@dataclass(frozen=True, kw_only=True)
class LeakReport:
    """Held-out figures of the probe in both splits."""

    metric: str
    inside_train: float
    inside_other: float
    gap: float
    low: float
    high: float
    """99 % interval of the gap, groups resampled in each split."""

    @property
    def leaks(self) -> bool:
        """Whether the gap is beyond its interval and beyond 5 points."""
        return self.low > 0 and self.gap > GAP

    @property
    def message(self) -> str:
        """One line for the log and the report."""
        figures = (
            f"a linear probe reaches {self.metric} {100 * self.inside_train:.1f} inside train and "
            f"{100 * self.inside_other:.1f} inside the other split (gap {100 * self.gap:+.1f}, 99 % "
            f"{100 * self.low:+.1f} to {100 * self.high:+.1f})"
        )
        if not self.leaks:
            return figures
        return (
            f"LEAK: {figures}: these features know the training labels; validate inside the other "
            "split only"
        )


def leak_probe(
    kind: Kind,
    train: ProbedSplit,
    other: ProbedSplit,
    *,
    folds: int = 5,
    ridge: float = 1.0,
    seed: int = 0,
) -> LeakReport:
    """Compare the same probe inside two splits.

    Args:
        kind: classification (accuracy) or regression (pearson).
        train: the split that encoders or published features may have seen.
        other: a split that they should not have seen.
        folds: of groups, inside each split.
        ridge: penalty on the weights of standardised features, in rows.
        seed: of the folds, the thinning and the bootstrap.

    Raises:
        ValueError: multi-label targets, or fewer groups than folds in a split.
    """
    if kind == "multilabel":
        raise ValueError("the leak probe takes one class or one value a row; probe label by label")
    name = "accuracy" if kind == "classification" else "pearson"
    rows = min(len(train.target), len(other.target))
    figures, draws = [], []
    for place, split in enumerate((train, other)):
        thinned = _thinned(split, rows, seed)
        held_out = _held_out(kind, thinned, folds, ridge, seed)
        figures.append(find_metric(name)(held_out, thinned.target))
        draws.append(
            resampled(
                name,
                held_out,
                thinned.target,
                thinned.groups,
                resamples=4000,
                seed=seed + place,
            )
        )
    fewest = min(train.groups.count, other.groups.count)
    low, high = percentile_interval(draws[0] - draws[1], LEVEL, fewest)
    return LeakReport(
        metric=name,
        inside_train=figures[0],
        inside_other=figures[1],
        gap=figures[0] - figures[1],
        low=low,
        high=high,
    )


def _thinned(split: ProbedSplit, rows: int, seed: int) -> ProbedSplit:
    """Whole groups at random until there are as many rows as asked for."""
    if len(split.target) <= rows:
        return split
    order = torch.randperm(split.groups.count, generator=torch.Generator().manual_seed(seed))
    sizes = torch.bincount(split.groups.code, minlength=split.groups.count)[order]
    kept = order[: int((sizes.cumsum(0) < rows).sum()) + 1]
    at = torch.isin(split.groups.code, kept)
    return ProbedSplit(
        features=split.features[at],
        target=split.target[at],
        groups=Groups.of(split.groups.code[at]),
    )


def _held_out(kind: Kind, split: ProbedSplit, folds: int, ridge: float, seed: int) -> Tensor:
    """Predictions of each row by the probe of the other folds."""
    if split.groups.count < folds:
        raise ValueError(f"{split.groups.count} groups cannot make {folds} folds")
    order = torch.randperm(split.groups.count, generator=torch.Generator().manual_seed(seed))
    fold = (torch.argsort(order) % folds)[split.groups.code]
    outputs = 1 if kind == "regression" else int(split.target.max()) + 1
    found = torch.zeros(len(split.target), outputs, dtype=torch.float64)
    for held in range(folds):
        at = fold == held
        x = split.features.double()
        centre, spread = x[~at].mean(0), x[~at].std(0).clamp(min=1e-9)
        # Constant columns stay zero instead of exploding on the held-out rows.
        x = ((x - centre) / spread).masked_fill(spread <= 1e-9, 0.0).clamp(-10, 10)
        fit = _ridge if kind == "regression" else _logistic
        weights, bias = fit(x[~at], split.target[~at], outputs, ridge)
        found[at] = x[at] @ weights + bias
    return found if kind == "regression" else torch.softmax(found, 1)


def _ridge(x: Tensor, target: Tensor, outputs: int, ridge: float) -> tuple[Tensor, Tensor]:
    y = target.double().reshape(-1, outputs)
    gram = x.T @ x + ridge * torch.eye(x.shape[1], dtype=torch.float64)
    return torch.linalg.solve(gram, x.T @ (y - y.mean(0))), y.mean(0)


def _logistic(x: Tensor, target: Tensor, outputs: int, ridge: float) -> tuple[Tensor, Tensor]:
    weights = torch.zeros(x.shape[1], outputs, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(outputs, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([weights, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        loss = torch.nn.functional.cross_entropy(x @ weights + bias, target.long())
        loss = loss + ridge * weights.square().sum() / (2 * len(x))
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    solver.step(closure)  # type: ignore[no-untyped-call]
    return weights.detach(), bias.detach()
