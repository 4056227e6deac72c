"""emotion2vec+ from its checkpoint: states, and probabilities of nine classes for the whole clip."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from cluster.errors import WeightsError
from encoders.audio._emotion2vec_net import AUDIO, Emotion2vecNet, sizes_of
from encoders.audio._inputs import SpeechBranch, WavePublisher
from encoders.audio._speech_heads import SpeechWithHead
from encoders.checkpoints import file_of, tensors_of
from encoders.spec import Descriptor

PREFIX = "d2v_model."
PRETRAINING = (AUDIO + "decoder.", "_ema.")
"""Beginnings of parameters that only pretraining uses."""


class Emotion2vec(SpeechWithHead):
    """Wrapper of emotion2vec+ base, large and seed."""

    def _loaded(self, path: Path) -> Any:
        return _net(self._descriptor, path)

    def _scaled(self, samples: np.ndarray) -> np.ndarray:
        return _scaled(samples) if len(samples) else samples

    def _outputs(self, mean: Tensor) -> dict[str, Tensor]:
        return {"emotion": self._model.proj(mean).softmax(-1)}


class Emotion2vecPublisher(WavePublisher):
    """Gives samples, 320 a step, scaled as the model wants them."""

    def _scaled(self, samples: np.ndarray) -> np.ndarray:
        return _scaled(samples)


class Emotion2vecBranch(SpeechBranch):
    """emotion2vec+ without its classes, from samples to states."""

    lists = (AUDIO + "context_encoder.blocks", "blocks")
    unused = ("proj",)

    def _loaded(self, descriptor: Descriptor, path: Path) -> Any:
        return _net(descriptor, path)


def _net(descriptor: Descriptor, path: Path) -> Emotion2vecNet:
    file = file_of(path)
    states = _named(tensors_of(file))
    try:
        sizes = sizes_of(states)
        if sizes.classes != (wanted := descriptor.spec.side["emotion"]):
            raise ValueError(f"it has {sizes.classes} classes, expected {wanted}")
        net = Emotion2vecNet(sizes)
        net.load_state_dict(states, strict=True)
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"{file} is no emotion2vec+: {' '.join(str(error).split())[:300]}; expected the "
            "checkpoint of emotion2vec/emotion2vec_plus_base or _large with its nine classes"
        ) from error
    return net


def _scaled(samples: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-5)
    return scaled


def _named(states: Mapping[str, Any]) -> dict[str, Tensor]:
    """Parameters of the net by its own names, without those of pretraining."""
    own = {name.removeprefix(PREFIX): value for name, value in states.items()}
    found = {
        name: value.float()
        for name, value in own.items()
        if isinstance(value, Tensor) and not name.startswith(PRETRAINING)
    }
    scale = found.get(AUDIO + "alibi_scale")
    if scale is not None and scale.ndim == 4:  # of older checkpoints
        found[AUDIO + "alibi_scale"] = scale.unsqueeze(0)
    return found
