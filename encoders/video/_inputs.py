"""Pictures as they are published for a net that trains a vision model, and the model as a branch of it.

A step is one picture, cut and turned as the wrappers that encode do it, as bytes; a picture that says nothing
(no face) is not valid. A model of single pictures makes a step of each; a model of films makes one of every
run of as many as it reads, and sees nothing where a picture of a run is not valid.

Shapes: batch, time, feature.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import pad

from encoders.batching import model_folder, nothing, steps
from encoders.branch import EncoderBranch, Join, last
from encoders.spec import Clip, Descriptor, Encoded, FramePolicy
from encoders.video._towers import Tower, load_tower
from encoders.video._transformer import (
    Pictures,
    check_runs,
    colours_of,
    face_finder,
    runs_of,
    scaled,
)


class PicturePublisher:
    """Gives the pictures that the model would read."""

    def __init__(
        self,
        descriptor: Descriptor,
        weights: Mapping[str, Path],
        *,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        # Loaded and let go: what it does not read is refused before anything is published.
        tower = load_tower(descriptor, weights["model"], "cpu", threads)
        self._policy, self._run = _policy_of(descriptor), run_of(tower, descriptor)
        finder = face_finder(descriptor, weights, threads)
        self._pictures = Pictures(Path(model_folder(weights["model"])), tower.size, finder)
        self._dim = descriptor.dim

    def encode(self, clips: Sequence[Clip]) -> list[Encoded]:
        """Pictures of each clip; no frames give one step that is not valid."""
        return [self._encoded(clip) for clip in clips]

    def _encoded(self, clip: Clip) -> Encoded:
        frames = clip.frames[self._policy]
        if len(frames.pixels) == 0:
            return nothing(clip, self._dim)
        pictures, valid = self._pictures.of(frames)
        ends = np.append(frames.times_s[1:], max(clip.duration_s, frames.times_s[-1]))
        shown = [at for run in runs_of(len(pictures), self._run) for at in run]
        values = pictures.reshape(len(pictures), -1)[shown]
        return steps(values, frames.times_s[shown], ends[shown], valid=valid[shown])


class PictureBranch(EncoderBranch):
    """Any image or video transformer, from pictures to states."""

    colours: Tensor

    def __init__(self, descriptor: Descriptor, weights: Mapping[str, Path]) -> None:
        tower = load_tower(descriptor, weights["model"], "cpu", torch.get_num_threads())
        run = run_of(tower, descriptor)
        depth = descriptor.num_layers - 1
        unused, top = _beside_blocks(tower, run)
        super().__init__(tower.model, dim=descriptor.layer_dim, depth=depth, top=top, unused=unused)
        self._tower, self._run = tower, run
        colours = colours_of(Path(model_folder(weights["model"])))
        self.register_buffer("colours", colours, persistent=False)

    def forward(
        self,
        values: Float[Tensor, "batch time feature"],
        mask: Bool[Tensor, "batch time"],
        join: Join = last,
    ) -> tuple[Float[Tensor, "batch steps width"], Bool[Tensor, "batch steps"]]:
        """The last block's states, or what is made of all; only what shows something is read."""
        rows, more = len(mask), -mask.shape[1] % self._run
        shown = pad(mask, (0, more)).reshape(rows, -1, self._run)
        said = shown.any(2)
        runs = pad(values, (0, 0, 0, more)).reshape(*shown.shape, -1)[said]
        width = join([runs.new_zeros(1, 1, self.dim)] * (self.depth + 1)).shape[2]
        states = runs.new_zeros(*said.shape, width)
        if not len(runs):
            return states, said
        side = self._tower.size
        given = scaled(runs.reshape(-1, self._run, side, side, 3), shown[said], self.colours)
        if self._tower.frames is None:
            given = given[:, 0]
        found = join([level.unsqueeze(1) for level in self._tower.states(given)])[:, 0]
        return states.index_put((said,), found.to(states.dtype)), said


def run_of(tower: Tower, descriptor: Descriptor) -> int:
    """Pictures that make one step of the model.

    Raises:
        ConfigError: a policy with other runs than a video transformer reads.
    """
    if tower.frames is None:
        return 1
    policy = _policy_of(descriptor)
    check_runs(tower, descriptor.name, policy)
    return policy.count


def _policy_of(descriptor: Descriptor) -> FramePolicy:
    policy = descriptor.frame_policy
    assert policy is not None
    return policy


def _beside_blocks(tower: Tower, run: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Parameters that no state depends on, and modules above the blocks: the gradients of a blank tell."""
    one = () if tower.frames is None else (run,)
    states = tower.states(torch.zeros(1, *one, 3, tower.size, tower.size))
    named = {name: each for name, each in tower.model.named_parameters() if each.requires_grad}
    below, above = (_reached(state.sum(), named) for state in (states[0], torch.stack(states[1:])))
    modules = tower.model.named_modules()
    blocks = tuple(f"{name}." for name, each in modules if isinstance(each, nn.ModuleList))
    unused = [name for name in named if name not in below | above]
    top = [n.rpartition(".")[0] for n in named if n in above - below and not n.startswith(blocks)]
    return tuple(unused), tuple(dict.fromkeys(top))


def _reached(total: Tensor, named: Mapping[str, nn.Parameter]) -> set[str]:
    """Names of the parameters that a number depends on."""
    parameters = list(named.values())
    found = torch.autograd.grad(total, parameters, retain_graph=True, allow_unused=True)
    # Typed as if all were there.
    grads: Sequence[Tensor | None] = found
    return {name for name, grad in zip(named, grads, strict=True) if grad is not None}
