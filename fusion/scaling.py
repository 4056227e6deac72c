"""What is fitted on a training part before a net sees it: mean and spread of features and targets, and PCA.

    z = (x - mean) / std            over the real steps of the training part, per feature
    z' = z . basis                  for the inputs that ask for it: the directions of largest variance

Fitted once per fold on its training rows only, masks respected, and stored with the net. A feature that
never varies in training comes out as zero. The principal directions come from the smaller of the two
eigenproblems (rows x rows or features x features).

    t = (y - mean) / std            of the targets of a regression: what a net is trained on, and answers

so that a net learns values of any unit as fast: it begins with answers around zero.

Shapes: batch, time, feature, component, row.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fusion.batch import Batch, Steps

PCA_ROWS = 20_000
"""Steps that the principal directions are computed from; further ones are not looked at."""


class Scaler(nn.Module):
    """Scales every input of a batch; its buffers travel with the net's weights.

    Args:
        dims: feature width of each input.
        pca: input -> number of components, for the inputs that are reduced.

    Raises:
        ValueError: PCA of an input that is not there, or to more components than features.
    """

    def __init__(self, dims: Mapping[str, int], pca: Mapping[str, int] | None = None) -> None:
        super().__init__()
        self.dims = dict(sorted(dims.items()))
        self.pca = dict(sorted((pca or {}).items()))
        for name, width in self.pca.items():
            if name not in self.dims or not 1 <= width <= self.dims[name]:
                raise ValueError(
                    f"pca of {name!r} to {width}: expected one of {self.dims} and 1 to its width"
                )
        self.inputs = nn.ModuleDict(
            {name: _Input(dim, self.pca.get(name)) for name, dim in self.dims.items()}
        )

    @property
    def out_dims(self) -> dict[str, int]:
        """Feature width of each input behind the scaler: what the net is made for."""
        return {name: self.pca.get(name, dim) for name, dim in self.dims.items()}

    @classmethod
    def fitted(
        cls,
        batches: Iterable[Batch],
        dims: Mapping[str, int],
        *,
        pca: Mapping[str, int] | None = None,
        scale: Literal["none", "standard"] = "standard",
        raw: Collection[str] = (),
    ) -> "Scaler":
        """Fit on the batches of a training part, read once.

        Args:
            batches: all rows of the training part, in any order.
            dims: feature width of each input.
            pca: input -> number of components.
            scale: ``none`` leaves mean and spread as they are.
            raw: inputs that nothing is fitted on and that stay as they are.

        Raises:
            ValueError: PCA of an input that is to stay as it is.
        """
        scaler = cls(dims, pca)
        if kept := sorted(set(raw) & set(scaler.pca)):
            raise ValueError(f"pca of {kept}: they are read by models, as they are")
        sums = {
            name: _Moments(dim, name in scaler.pca)
            for name, dim in scaler.dims.items()
            if name not in raw
        }
        for batch in batches if sums else ():
            for name, moments in sums.items():
                sequence = batch.inputs[name]
                moments.add(sequence.values[sequence.mask])
        for name, moments in sums.items():
            part = scaler.inputs[name]
            assert isinstance(part, _Input)
            if scale == "standard":
                part.set_moments(*moments.finish())
            if name in scaler.pca:
                part.set_basis(moments.kept())
        return scaler

    def moments(self, name: str) -> tuple[Float[Tensor, " feature"], Float[Tensor, " feature"]]:
        """Mean of an input's features in training, and one over their spread (0 where nothing varied)."""
        part = self.inputs[name]
        assert isinstance(part, _Input)
        return part.mean, part.scale

    def forward(self, batch: Batch) -> Batch:
        """The same batch with scaled inputs; inputs that the scaler does not know fall away."""
        inputs = {}
        for name, part in self.inputs.items():
            sequence = batch.inputs[name]
            inputs[name] = Steps(part(sequence.values), sequence.mask)
        return replace(batch, inputs=inputs)


class Units(nn.Module):
    """Units of the regressions among the tasks; its buffers travel with the net's weights.

    Until it is fitted, mean and spread are 0 and 1. Without a regression it holds nothing.

    Args:
        names: of the regressions.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        self.names = tuple(sorted(names))
        if self.names:
            self.register_buffer("mean", torch.zeros(len(self.names)))
            self.register_buffer("std", torch.ones(len(self.names)))

    @property
    def unfitted(self) -> dict[str, Tensor]:
        """State before it is fitted: that of a net which learnt its targets as they are."""
        return Units(self.names).state_dict()

    def fit(self, targets: Mapping[str, Tensor], known: Mapping[str, Tensor]) -> None:
        """Take mean and spread from the known targets of a training part; those that never vary keep 1."""
        for place, name in enumerate(self.names):
            values = targets[name][known[name]].double()
            if not len(values):
                continue
            mean, std = values.mean(), values.std(correction=0)
            self.mean[place] = mean
            self.std[place] = std if std > 1e-6 * mean.abs() else 1.0

    def scaled(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Targets or answers of tasks as a net is trained on them."""
        return self._mapped(values, lambda value, mean, std: (value - mean) / std)

    def unscaled(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Answers of a net in the units of the targets."""
        return self._mapped(values, lambda value, mean, std: mean + std * value)

    def _mapped(
        self, values: Mapping[str, Tensor], change: Callable[[Tensor, Tensor, Tensor], Tensor]
    ) -> dict[str, Tensor]:
        changed = dict(values)
        for place, name in enumerate(self.names):
            if name in values:
                device = values[name].device
                mean, std = self.mean[place].to(device), self.std[place].to(device)
                changed[name] = change(values[name], mean, std)
        return changed


class _Input(nn.Module):
    """Scaling of one input."""

    mean: Tensor
    scale: Tensor
    basis: Tensor | None

    def __init__(self, dim: int, components: int | None) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))
        basis = None if components is None else torch.eye(dim)[:, :components].contiguous()
        self.register_buffer("basis", basis)

    def forward(
        self, values: Float[Tensor, "batch time feature"]
    ) -> Float[Tensor, "batch time component"]:
        scaled = (values.to(self.mean.dtype) - self.mean) * self.scale
        return scaled if self.basis is None else scaled @ self.basis

    def set_moments(self, mean: Tensor, scale: Tensor) -> None:
        self.mean.copy_(mean)
        self.scale.copy_(scale)

    def set_basis(self, rows: Float[Tensor, "row feature"]) -> None:
        assert self.basis is not None
        scaled = (rows.to(self.mean.dtype) - self.mean) * self.scale
        self.basis.copy_(principal_directions(scaled.double(), self.basis.shape[1]))


class _Moments:
    """Sums over real steps, in float64."""

    def __init__(self, dim: int, keep: bool) -> None:
        self.count = 0
        self.shift = torch.zeros(dim, dtype=torch.float64)
        self.total = torch.zeros(dim, dtype=torch.float64)
        self.squares = torch.zeros(dim, dtype=torch.float64)
        self.rows: list[Tensor] | None = [] if keep else None
        self.num_kept = 0

    def add(self, rows: Float[Tensor, "row feature"]) -> None:
        if len(rows) == 0:
            return
        wide = rows.double().cpu()
        if self.count == 0:
            # Sums around a typical value: the variance of a feature far from zero keeps its digits.
            self.shift = wide.mean(0)
        moved = wide - self.shift
        self.count += len(wide)
        self.total += moved.sum(0)
        self.squares += moved.square().sum(0)
        if self.rows is not None and self.num_kept < PCA_ROWS:
            self.rows.append(rows[: PCA_ROWS - self.num_kept].float().cpu())
            self.num_kept += len(self.rows[-1])

    def finish(self) -> tuple[Tensor, Tensor]:
        """Mean, and one over the standard deviation (zero where nothing varies)."""
        if self.count == 0:
            return self.shift, torch.zeros_like(self.shift)
        mean = self.total / self.count
        variance = (self.squares / self.count - mean.square()).clamp(min=0)
        std = variance.sqrt()
        still = std <= 1e-6 * (1e-6 + (self.shift + mean).abs())
        return self.shift + mean, torch.where(still, 0.0, 1 / torch.where(still, 1.0, std))

    def kept(self) -> Tensor:
        assert self.rows is not None
        return torch.cat(self.rows) if self.rows else torch.zeros(0, len(self.shift))


def principal_directions(
    rows: Float[Tensor, "row feature"], components: int
) -> Float[Tensor, "feature component"]:
    """Orthonormal directions of largest variance; the largest entry of each is positive.

    With fewer rows than components the rest are zero.
    """
    count, dim = rows.shape
    basis = torch.zeros(dim, components, dtype=rows.dtype)
    if count < 2:
        return basis
    centred = rows - rows.mean(0)
    if count <= dim:
        values, vectors = torch.linalg.eigh(centred @ centred.T)
        vectors = centred.T @ vectors
    else:
        values, vectors = torch.linalg.eigh(centred.T @ centred)
    order = values.argsort(descending=True)[:components]
    order = order[values[order] > 1e-10 * values.max().clamp(min=1e-300)]
    found = torch.nn.functional.normalize(vectors[:, order], dim=0)
    top = found.abs().argmax(0)
    found = found * found.gather(0, top.unsqueeze(0)).sign()
    basis[:, : found.shape[1]] = found
    return basis
