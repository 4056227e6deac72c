"""The state of a training between two epochs; `fusion.training.loop.fit` drives it."""

import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from fusion.augment import Side, augment, mixup
from fusion.batch import Batch, Output
from fusion.metrics import metric
from fusion.predictor import Predictor, load_own_state, own_state, state_copy
from fusion.tasks import Task
from fusion.training.course import Course
from fusion.training.objective import Objective, balanced_weights
from fusion.training.optimiser import optimiser_of, schedule_of, schedule_state
from fusion.training.ordering import epoch_steps, generator_of, seed_of, share_of
from fusion.training.outcome import FittedNet, NotFiniteError
from fusion.training.predicting import figures, joined, predict
from fusion.training.recipe import Recipe
from fusion.training.rows import Feed, RowSplit, ViewFeed, at_once
from fusion.training.units import fit_units
from fusion.workers import Group, synchronised

PROBED = 64
"""Training rows that a net is asked about before it is handed out, where no other row was predicted."""


class Trainer:
    """The state between two epochs."""

    def __init__(
        self,
        predictor: Predictor,
        feed: Feed,
        rows: RowSplit,
        recipe: Recipe,
        *,
        tasks: Mapping[str, Task],
        course: Course,
        group: Group,
    ) -> None:
        fit_units(predictor, feed, rows.train, recipe)
        self.predictor, self.feed, self.tasks = predictor.to(group.device), feed, dict(tasks)
        self.train, self.valid = rows.train, rows.valid
        self.recipe, self.seed, self.group = recipe, course.seed, group
        self.first = next(iter(self.tasks))
        self.objective = self._objective()
        if recipe.mixup and (predictor.axis != "clip" or predictor.net.reads_targets):
            raise ValueError(
                "mixup takes a net of clips whose own losses read no targets; set mixup to 0"
            )
        if predictor.net.owns_encoders and recipe.feature_noise:
            raise ValueError(
                "tokens, sound and pictures cannot be given noise; set feature_noise to 0"
            )
        self.chances = self._chances() if recipe.balanced else None
        self.chooses = self._chooses()
        self.train_row = torch.full((len(feed.lengths),), -1)
        self.train_row[self.train] = torch.arange(len(self.train))
        self.net = self._distributed()
        self.optimiser = optimiser_of(predictor.net, recipe)
        num_steps = recipe.epochs * -(-len(self.train) // recipe.batch_size)
        rates = None if self.chooses else course.rates
        self.schedule = schedule_of(self.optimiser, recipe, num_steps, rates)
        half = recipe.precision == "float16"
        self.grad_scaler = torch.amp.GradScaler(group.device.type, enabled=half)
        self.epoch = 0
        self.lr = recipe.lr
        self.best: dict[str, Tensor] = {}
        self.best_epoch = 0
        self.best_score = float("inf")
        self.history: list[dict[str, float]] = []

    @property
    def done(self) -> bool:
        """Whether the last epoch was run, or the figures stopped getting better."""
        patience = self.recipe.patience
        stale = patience > 0 and self.chooses and self.epoch - self.best_epoch >= patience
        return self.epoch >= self.recipe.epochs or stale

    def run_epoch(self) -> dict[str, float]:
        """One pass over the training part, then the figures on valid rows."""
        rank, device = self.group.rank, self.group.device
        torch.manual_seed(seed_of("epoch", self.seed, self.epoch, rank))
        self.draws = generator_of("augment", self.seed, self.epoch, rank, device=device)
        self.views = self._views()
        steps = epoch_steps(
            self.train,
            self.feed.lengths[self.train],
            step_rows=self.recipe.batch_size,
            seed=self.seed,
            epoch=self.epoch,
            chances=self.chances,
        )
        self.predictor.train()
        loss = self._summed(torch.stack([self._step(rows) for rows in steps]).mean())
        self.epoch += 1
        self.lr = float(self.optimiser.param_groups[0]["lr"])
        self._check_finite("the training loss", [loss])
        self._check_finite("a weight", self.predictor.net.parameters())
        if self.grad_scaler.is_enabled() and self.grad_scaler.get_scale() < 1:
            # Each step whose gradients are not finite is left out, and halves the scale (from 65536 on).
            raise NotFiniteError(self.epoch, self.lr, "every gradient of late, as float16,")
        record = {"epoch": float(self.epoch), "lr": self.lr, "train/loss": float(loss)}
        record.update(self._validate())
        self._judge(record)
        self.history.append(record)
        return record

    def _step(self, rows: Tensor) -> Tensor:
        """One update; this worker's share of its loss."""
        mine, real = share_of(rows, rank=self.group.rank, world=self.group.world)
        count = min(self.recipe.accumulation_steps, len(mine))
        parts = zip(mine.tensor_split(count), real.tensor_split(count), strict=True)
        steps = [self._sides(self._batch(part, weight)) for part, weight in parts]
        coupled = count > 1 or self.group.world > 1
        totals = [self._totals(side) if coupled else None for side in zip(*steps, strict=True)]
        self.optimiser.zero_grad(set_to_none=True)
        shown = torch.zeros((), device=self.group.device)
        for index, sides in enumerate(steps):
            with synchronised(self.net, last=index == count - 1):
                with self._autocast():
                    output: Output = self.net(sides[0].batch)
                losses = [
                    side.share * self.objective(output, side.batch, total)
                    for side, total in zip(sides, totals, strict=True)
                ]
                loss = torch.stack(losses).sum()
                # The group averages gradients; the loss is a sum over its workers.
                torch.autograd.backward(self.grad_scaler.scale(loss * self.group.world))
            shown += loss.detach()
        self.grad_scaler.unscale_(self.optimiser)
        if self.recipe.clip_norm:
            nn.utils.clip_grad_norm_(self.predictor.net.parameters(), self.recipe.clip_norm)
        self.grad_scaler.step(self.optimiser)
        self.grad_scaler.update()
        if isinstance(self.schedule, LambdaLR):
            self.schedule.step()
        return shown

    def _batch(self, rows: Tensor, weight: Tensor) -> Batch:
        """Scaled and augmented rows on the device; `weight` is zero for rows that only fill up."""
        device = self.group.device
        batch = self._rows(rows).to(device)
        with torch.no_grad():
            batch = self.predictor.scaler(batch)
            batch = replace(batch, targets=self.predictor.units.scaled(batch.targets))
        weights = weight.to(device)
        if batch.steps is not None:
            weights = weights.unsqueeze(1) * batch.steps
        if batch.weights is not None:
            weights = weights * batch.weights
        return augment(
            replace(batch, weights=weights, index=self.train_row[rows].to(device)),
            modality_dropout=self.recipe.modality_dropout,
            feature_noise=self.recipe.feature_noise,
            generator=self.draws,
        )

    def _views(self) -> Tensor | None:
        """The view of each row in this epoch, the same on every worker; None where there are no views."""
        if not isinstance(self.feed, ViewFeed) or self.feed.num_views == 0:
            return None
        generator = generator_of("views", self.seed, self.epoch)
        count = len(self.feed.lengths)
        return torch.randint(self.feed.num_views + 1, (count,), generator=generator)

    def _rows(self, rows: Tensor) -> Batch:
        """Training rows as they are seen in this epoch."""
        if self.views is None or not isinstance(self.feed, ViewFeed):
            return self.feed.batch(rows)
        return self.feed.batch_in_views(rows, self.views[rows])

    def _sides(self, batch: Batch) -> tuple[Side, ...]:
        """What the net sees, and each set of targets that its logits are held against."""
        if not self.recipe.mixup:
            return (Side(batch=batch, share=1.0),)
        # Tokens, sound and pictures cannot be mixed; what encoders make of them can.
        inside = bool(self.predictor.net.owns_encoders)
        return mixup(batch, alpha=self.recipe.mixup, generator=self.draws, inside=inside)

    def _totals(self, sides: tuple[Side, ...]) -> dict[str, Tensor]:
        """Total weights of a step over all workers, in one message."""
        totals = self.objective.totals([side.batch for side in sides])
        summed = self._summed(torch.stack(list(totals.values())).float())
        return dict(zip(totals, summed, strict=True))

    def _validate(self) -> dict[str, float]:
        """Figures on the valid rows, equal on every worker."""
        if len(self.valid) == 0:
            return {}
        group = self.group
        if group.world > 1:
            for buffer in self.predictor.buffers():
                dist.broadcast(buffer, 0)
        mine = self.valid[group.rank :: group.world]
        size = 4 * self.recipe.batch_size
        got = predict(self.predictor, self.feed, mine, batch_size=size, device=group.device)
        got = joined(got, group.world)
        self._check_finite("a prediction of the rows that choose the epoch", got.logits.values())
        found = figures(got, self.tasks, extra=self.recipe.monitor)
        units = self.predictor.units
        scaled = replace(got, logits=units.scaled(got.logits), targets=units.scaled(got.targets))
        loss = self.objective.of_rows(scaled)
        return {"valid/loss": loss, **{f"valid/{name}": value for name, value in found.items()}}

    def _check_finite(self, what: str, tensors: Iterable[Tensor]) -> None:
        """Equal on every worker: losses, weights and predictions are."""
        if not all(bool(tensor.isfinite().all()) for tensor in tensors):
            raise NotFiniteError(self.epoch, self.lr, what)

    def _chooses(self) -> bool:
        """Whether some valid row has a target that the monitor can be computed from."""
        if len(self.valid) == 0:
            return False
        _, known = self.feed.targets(self.valid)
        names = list(self.tasks) if self.recipe.monitor == "loss" else [self.first]
        return any(bool(known[name].any()) for name in names)

    def _judge(self, record: Mapping[str, float]) -> None:
        """Remember the epoch if it is the best so far, or if nothing chooses."""
        monitor, score = self.recipe.monitor, 0.0
        if self.chooses:
            name = "valid/loss" if monitor == "loss" else f"valid/{self.first}/{monitor}"
            score = record[name] if monitor == "loss" else metric(monitor).loss(record[name])
            # A metric may have no value yet, as a correlation of equal predictions.
            score = score if math.isfinite(score) else math.inf
        last_counts = not self.chooses or self.recipe.patience == 0
        if last_counts or score < self.best_score or not self.best:
            self.best_score, self.best_epoch = score, self.epoch
            self.best = state_copy(self.predictor)
        if isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step(score)

    def state(self) -> bytes:
        """All that the next epoch depends on."""
        content = {
            "epoch": self.epoch,
            "now": own_state(self.predictor),
            "best": self.best,
            "best_epoch": self.best_epoch,
            "best_score": self.best_score,
            "history": self.history,
            "optimiser": self.optimiser.state_dict(),
            "schedule": {} if self.schedule is None else schedule_state(self.schedule),
            "grad_scaler": self.grad_scaler.state_dict(),
            "workers": self.group.world,
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        return buffer.getvalue()

    def load(self, content: bytes) -> None:
        """Go on from a state; nothing in it is executed."""
        device = self.group.device
        state = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
        load_own_state(self.predictor, state["now"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        self.grad_scaler.load_state_dict(state["grad_scaler"])
        self.epoch, self.best, self.history = state["epoch"], state["best"], state["history"]
        self.best_epoch, self.best_score = state["best_epoch"], state["best_score"]

    def finish(self, *, stopped: bool) -> FittedNet:
        """The weights of the best epoch.

        Raises:
            ValueError: the monitor had no value in any epoch.
        """
        if self.chooses and self.recipe.patience and math.isinf(self.best_score) and not stopped:
            raise ValueError(
                f"monitor {self.recipe.monitor} has no value on the rows that choose the epoch, in no "
                "epoch; set monitor to loss"
            )
        load_own_state(self.predictor, self.best)
        if len(self.valid) == 0:
            # Nobody has looked at what the net says yet.
            with torch.no_grad():
                count = at_once(self.feed, self.train, PROBED)
                some = self.feed.batch(self.train[:count]).to(self.group.device)
                said = self.predictor.eval()(some).logits
            self._check_finite("a prediction", said.values())
        return FittedNet(
            predictor=self.predictor.eval(),
            best_epoch=self.best_epoch,
            history=self.history,
            stopped=stopped,
        )

    def _objective(self) -> Objective:
        recipe = self.recipe
        weights = {}
        if recipe.class_weights:
            weights = {
                name: self._balance(name)
                for name, task in self.tasks.items()
                if task.kind == "classification"
            }
        return Objective(
            self.tasks,
            loss=recipe.loss,
            options=recipe.loss_options,
            shares=recipe.task_weights,
            label_smoothing=recipe.label_smoothing,
            class_weights=weights,
            device=self.group.device,
        )

    def _balance(self, name: str) -> Tensor:
        targets, known = self.feed.targets(self.train)
        return balanced_weights(targets[name], known[name], self.tasks[name].outputs)

    def _chances(self) -> Tensor:
        """Chance of each training row, so that every class comes equally often."""
        targets, known = self.feed.targets(self.train)
        target = targets[self.first]
        if self.tasks[self.first].kind != "classification" or target.ndim != 1:
            raise ValueError(
                "balanced sampling takes a net of clips whose first task is a classification; "
                "use class_weights"
            )
        return torch.where(known[self.first], self._balance(self.first)[target.clamp(min=0)], 0.0)

    def _distributed(self) -> nn.Module:
        if self.group.world == 1:
            return self.predictor.net
        device = self.group.device
        return nn.parallel.DistributedDataParallel(
            self.predictor.net,
            device_ids=[device] if device.type == "cuda" else None,
            find_unused_parameters=True,
        )

    def _summed(self, value: Tensor) -> Tensor:
        if self.group.world > 1:
            dist.all_reduce(value)
        return value

    def _autocast(self) -> torch.autocast:
        kind = torch.float16 if self.recipe.precision == "float16" else torch.bfloat16
        low = self.recipe.precision != "float32"
        return torch.autocast(self.group.device.type, dtype=kind, enabled=low)
