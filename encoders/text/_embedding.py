"""One vector a text: the state of its last token, of its first, or the mean over all.

Texts are padded behind and masked, whichever side the tokenizer names: a causal model reads nothing behind a
token, and positions count from the first one. The tokenizer adds what the model was trained with (an end of
text behind, where `last` reads).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cluster.errors import ConfigError
from encoders.batching import (
    arithmetic,
    buckets,
    check_shape,
    model_folder,
    nothing,
    padded,
    quiet,
    stacked,
    states_of,
    use_threads,
)
from encoders.pooling import pooled
from encoders.spec import Clip, Descriptor, Encoded
from encoders.text._transformer import loaded


class EmbeddingModel:
    """Wrapper of any embedding model in a folder."""

    def __init__(
        self,
        descriptor: Descriptor,
        weights: Mapping[str, Path],
        *,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        from transformers import AutoTokenizer

        self._pooling = str(descriptor.options["pooling"])
        use_threads(threads)
        quiet()
        folder = model_folder(weights["model"])
        self._descriptor = descriptor
        self._device = device
        self._prompt = str(descriptor.options["prompt"]).replace("\\n", "\n")
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        config = self._loaded(folder)
        check_shape(descriptor, config.hidden_size, config.num_hidden_layers)
        asked = int(descriptor.options["max_tokens"])
        # Of RoBERTa and its kin two positions are never a token's; T5 has no table of them.
        positions = getattr(config, "max_position_embeddings", None) or asked + 2
        known = min(self._tokenizer.model_max_length, positions - 2)
        self._max_tokens = min(asked, known)
        fixed = len(self._tokenizer(self._prompt)["input_ids"])
        if self._max_tokens <= fixed:
            raise ConfigError(
                f"{descriptor.name}: at most {self._max_tokens} tokens are read, and prompt and ends take "
                f"{fixed}; type a larger max_tokens= (the model reads {known}) or a shorter prompt="
            )

    def _loaded(self, folder: str) -> Any:
        """Load the model; its configuration."""
        self._model = loaded(folder).eval().to(self._device)
        return self._model.config

    def encode(self, clips: Sequence[Clip]) -> list[Encoded]:
        """One step a clip; a wordless text is one step that is not valid."""
        out = [nothing(clip, self._descriptor.dim) for clip in clips]
        spoken = [index for index, clip in enumerate(clips) if (clip.text or "").strip()]
        rows = [self._tokens(clips[index].text or "") for index in spoken]
        for group in buckets([len(ids) for ids, _ in rows]):
            vectors = self._vectors([rows[position][0] for position in group])
            for position, vector in zip(group, vectors, strict=True):
                clip = clips[spoken[position]]
                out[spoken[position]] = self._encoded(clip, vector, cut=rows[position][1])
        return out

    def _tokens(self, text: str) -> tuple[list[int], bool]:
        """Token ids, the added ones included, and whether the text was cut for them."""
        whole = list(self._tokenizer(self._prompt + text, verbose=False)["input_ids"])
        if len(whole) <= self._max_tokens:
            return whole, False
        kept = self._tokenizer(
            self._prompt + text,
            truncation=True,
            max_length=self._max_tokens,
            truncation_side="right",
        )
        return list(kept["input_ids"]), True

    @torch.inference_mode()
    def _vectors(self, ids: list[list[int]]) -> list[np.ndarray]:
        rows = padded([torch.tensor(row) for row in ids]).to(self._device)
        mask = padded([torch.ones(len(row), dtype=torch.long) for row in ids]).to(self._device)
        with arithmetic(self._device):
            result = self._model(input_ids=rows, attention_mask=mask, output_hidden_states=True)
        values = stacked(states_of(result), self._descriptor.layers)
        return [self._pooled(row[: len(own)]) for row, own in zip(values, ids, strict=True)]

    def _pooled(self, states: np.ndarray) -> np.ndarray:
        if self._pooling == "mean":
            mean: np.ndarray = states.mean(0)
            return mean
        vector: np.ndarray = states[-1 if self._pooling == "last" else 0]
        return vector

    def _encoded(self, clip: Clip, vector: np.ndarray, *, cut: bool) -> Encoded:
        encoded = Encoded(
            values=vector[None],
            step_start_s=np.zeros(1),
            step_end_s=np.array([clip.duration_s]),
            valid=np.ones(1, bool),
            partial=f"text cut at {self._max_tokens} tokens" if cut else None,
        )
        return pooled(encoded, str(self._descriptor.options["pool"]), clip.words)
