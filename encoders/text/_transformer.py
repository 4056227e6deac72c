"""Hidden states of a text transformer, one step a token, with what it needs to line tokens up with words.

Serves every encoder (or encoder half) that `transformers.AutoModel` knows. Neighbouring utterances are
read along when the option `context` asks for it; only the tokens of the clip's own text are kept:

    [CLS] past [SEP] text [SEP] future [SEP]   ->   [CLS] text [SEP]

Attention masks make a token's state independent of padding, so batches are cut by like length.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

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
from encoders.spec import Clip, Descriptor, Encoded, Word


@dataclass(frozen=True)
class Tokens:
    """One clip, ready for the model."""

    ids: list[int]
    kept: list[int]
    """Positions of [CLS], the own tokens and [SEP]."""

    words: list[int]
    """Index of the word of each kept position; -1 for [CLS] and [SEP]."""

    cut: bool


class TextTransformer:
    """Wrapper of any text transformer in a folder."""

    def __init__(
        self,
        descriptor: Descriptor,
        weights: Mapping[str, Path],
        *,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        from transformers import AutoTokenizer

        use_threads(threads)
        quiet()
        folder = model_folder(weights["model"])
        self._descriptor = descriptor
        self._pool = str(descriptor.options["pool"])
        self._context = str(descriptor.options["context"])
        self._device = device
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._model = self._loaded(folder)
        config = self._model.config
        check_shape(descriptor, config.hidden_size, config.num_hidden_layers)
        # [CLS] and [SEP] stand around every text.
        self._room = min(self._tokenizer.model_max_length, positions_of(self._model)) - 2

    def _loaded(self, folder: str) -> Any:
        """The model, ready to run."""
        return loaded(folder).eval().to(self._device)

    def encode(self, clips: Sequence[Clip]) -> list[Encoded]:
        """States of the tokens of each clip's text; a wordless text is one step that is not valid."""
        out: list[Encoded | None] = [None] * len(clips)
        tokens: dict[int, Tokens] = {}
        for index, clip in enumerate(clips):
            if (clip.text or "").strip():
                tokens[index] = self._tokens(clip)
            else:
                side = {"word": np.full((1, 1), -1, np.float32)}
                out[index] = nothing(clip, self._descriptor.dim, side)
        spoken = list(tokens)
        for group in buckets([len(tokens[index].ids) for index in spoken]):
            members = [spoken[position] for position in group]
            states = self._states([tokens[index].ids for index in members])
            for index, values in zip(members, states, strict=True):
                out[index] = self._encoded(clips[index], tokens[index], values)
        return [encoded for encoded in out if encoded is not None]

    @torch.inference_mode()
    def _states(self, ids: list[list[int]]) -> list[np.ndarray]:
        rows = padded([torch.tensor(row) for row in ids]).to(self._device)
        mask = padded([torch.ones(len(row), dtype=torch.long) for row in ids]).to(self._device)
        with arithmetic(self._device):
            result = self._model(input_ids=rows, attention_mask=mask, output_hidden_states=True)
        return list(stacked(states_of(result), self._descriptor.layers))

    def _encoded(self, clip: Clip, tokens: Tokens, values: np.ndarray) -> Encoded:
        start, end = token_times(clip, tokens.words)
        # [CLS] and [SEP] speak for the whole text, and for no word.
        valid = np.array([word >= 0 or self._pool != "words" for word in tokens.words])
        encoded = Encoded(
            values=values[tokens.kept],
            step_start_s=start,
            step_end_s=end,
            valid=valid,
            side={"word": np.array(tokens.words, np.float32)[:, None]},
            partial=f"text cut at {self._room} tokens" if tokens.cut else None,
        )
        return pooled(encoded, self._pool, clip.words)

    def _tokens(self, clip: Clip) -> Tokens:
        text = clip.text or ""
        # What is too long for the model is cut below; the tokenizer need not say so.
        own = self._tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        ids, offsets = own["input_ids"][: self._room], own["offset_mapping"][: self._room]
        # A [SEP] more ends each side of the context.
        past, future = self._neighbours(clip, self._room - len(ids) - 2)
        first, last = self._tokenizer.cls_token_id, self._tokenizer.sep_token_id
        before = [first, *past, *([last] if past else [])]
        after = [last, *future, *([last] if future else [])]
        words = word_of_offsets(text, offsets)
        return Tokens(
            ids=before + ids + after,
            kept=[0, *range(len(before), len(before) + len(ids) + 1)],
            words=[-1, *words, -1],
            cut=len(own["input_ids"]) > self._room,
        )

    def _neighbours(self, clip: Clip, room: int) -> tuple[list[int], list[int]]:
        """Tokens of the utterances around, the nearest ones where not all find room."""
        if self._context == "none" or room <= 0:
            return [], []
        before, after = (
            self._tokenizer(" ".join(part), add_special_tokens=False, verbose=False)["input_ids"]
            if part
            else []
            for part in clip.context
        )
        if self._context == "past":
            return before[-room:], []
        half = max(room // 2, room - len(before), 0)
        after = after[: min(half, room)]
        left = room - len(after)
        return before[-left:] if left else [], after


def positions_of(model: Any) -> int:
    """Tokens that a model reads at once, those that a tokenizer adds included; it may be without values.

    Some (RoBERTa and its kin) count from behind the row of padding: their table has rows that are no token's.
    """
    skipped = [
        table.padding_idx + 1
        for name, table in model.named_modules()
        if name.endswith("position_embeddings") and getattr(table, "padding_idx", None) is not None
    ]
    rows: int = model.config.max_position_embeddings
    return rows - max(skipped, default=0)


def loaded(folder: str) -> Any:
    """The model of a folder in single precision; of two halves the one that encodes."""
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    return model.get_encoder() if model.config.is_encoder_decoder else model


def word_of_offsets(text: str, offsets: Sequence[tuple[int, int]]) -> list[int]:
    """Index of the blank-separated word at each token's first character that is no blank.

    >>> word_of_offsets("so funny", [(0, 2), (2, 5), (5, 8)])
    [0, 1, 1]
    """
    word, index, inside = [], -1, False
    for character in text:
        if not character.isspace() and not inside:
            index += 1
        inside = not character.isspace()
        word.append(index if inside else index + 1)
    return [word[_first_letter(text, start, end)] for start, end in offsets]


def _first_letter(text: str, start: int, end: int) -> int:
    while start < end - 1 and text[start].isspace():
        start += 1
    return min(start, len(text) - 1)


def token_times(clip: Clip, words: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Start and end of each token [s]: of its word where the clip has word times, else the whole clip."""
    spans = _word_spans((clip.text or "").split(), clip.words or ())
    whole = (0.0, clip.duration_s)
    times = np.array([spans.get(word, whole) for word in words], float).reshape(-1, 2)
    return times[:, 0], times[:, 1]


def _word_spans(written: Sequence[str], timed: Sequence[Word]) -> dict[int, tuple[float, float]]:
    """Times of the written words; transcript and timed words may differ in punctuation and case."""
    left = [_bare(word) for word in written]
    right = [_bare(word.text) for word in timed]
    matcher = difflib.SequenceMatcher(a=left, b=right, autojunk=False)
    return {
        block.a + i: (timed[block.b + i].start_s, timed[block.b + i].end_s)
        for block in matcher.get_matching_blocks()
        for i in range(block.size)
    }


def _bare(word: str) -> str:
    return "".join(c for c in word.lower() if c.isalnum()) or word
