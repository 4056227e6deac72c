"""A speech transformer with a head that reads arousal, dominance and valence from its mean last state."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from cluster.errors import ConfigError
from encoders.audio import DIMENSIONS
from encoders.audio._speech import SpeechTransformer
from encoders.spec import Descriptor


class DimensionalSpeech(SpeechTransformer):
    """Wrapper of the model and its head."""

    def __init__(
        self,
        descriptor: Descriptor,
        weights: Mapping[str, Path],
        *,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        super().__init__(descriptor, weights, device=device, threads=threads)
        # The head reads the last states, whichever are kept.
        self._layers = (*descriptor.layers, descriptor.num_layers - 1)

    def _loaded(self, folder: str) -> Any:
        net, info = _net_class().from_pretrained(
            folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
        if missing := sorted(info["missing_keys"]):
            raise ConfigError(
                f"{self._descriptor.name}: {folder} has no {', '.join(missing)}; expected the weights "
                "of a wav2vec 2.0 with classifier.dense and classifier.out_proj of three outputs"
            )
        self._head = net.classifier.eval()
        return net.wav2vec2

    @torch.inference_mode()
    def _side(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """One value a clip, at each of its steps."""
        last = torch.from_numpy(values[:, self._descriptor.width :])
        outputs = self._head(last.mean(0)).numpy() if len(values) else np.zeros(len(DIMENSIONS))
        steps = max(1, len(values))
        return {
            name: np.full((steps, 1), value, np.float32)
            for name, value in zip(DIMENSIONS, outputs, strict=True)
        }


class Head(nn.Module):
    """From the mean state to the three dimensions."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dense = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, len(DIMENSIONS))

    def forward(self, mean: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch 3"]:
        """Arousal, dominance and valence."""
        outputs: Tensor = self.out_proj(torch.tanh(self.dense(mean)))
        return outputs


def _net_class() -> Any:
    """The published model as `transformers` loads it; named here, since that import is slow."""
    from transformers import Wav2Vec2Model, Wav2Vec2PreTrainedModel

    class Net(Wav2Vec2PreTrainedModel):  # type: ignore[misc]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.wav2vec2 = Wav2Vec2Model(config)
            self.classifier = Head(config.hidden_size)
            self.post_init()

    return Net
