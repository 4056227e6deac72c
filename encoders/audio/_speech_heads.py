"""Speech transformers that were trained for emotion, with a head of their own on the mean last state."""

from abc import abstractmethod
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
from encoders.batching import model_folder
from encoders.spec import Descriptor


class SpeechWithHead(SpeechTransformer):
    """A speech transformer with a head of its own on the mean of the last states."""

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

    @torch.inference_mode()
    def _side(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """One value a clip, at each of its steps; zeros where there is none."""
        if not len(values):
            widths = self._descriptor.spec.side.items()
            return {name: np.zeros((1, width), np.float32) for name, width in widths}
        last = torch.from_numpy(values[:, self._descriptor.width :])
        outputs = self._outputs(last.mean(0).to(self._device))
        return {
            name: np.tile(value.float().cpu().numpy(), (len(values), 1))
            for name, value in outputs.items()
        }

    @abstractmethod
    def _outputs(self, mean: Float[Tensor, " dim"]) -> dict[str, Tensor]:
        """Each side column of the mean of a clip's last states."""


class DimensionalSpeech(SpeechWithHead):
    """Wrapper of audEERING's model: arousal, dominance and valence."""

    def _loaded(self, path: Path) -> Any:
        net, info = _net_class().from_pretrained(
            model_folder(path), local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
        if missing := sorted(info["missing_keys"]):
            raise ConfigError(
                f"{self._descriptor.name}: {path} has no {', '.join(missing)}; expected the weights "
                "of a wav2vec 2.0 with classifier.dense and classifier.out_proj of three outputs"
            )
        self._head = net.classifier.eval().to(self._device)
        return net.wav2vec2

    def _outputs(self, mean: Float[Tensor, " dim"]) -> dict[str, Tensor]:
        return dict(zip(DIMENSIONS, self._head(mean).split(1), strict=True))


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
