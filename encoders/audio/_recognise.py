"""Whisper as a transcriber: find speech, cut it into windows, decode greedily, time the words.

Silence and music make Whisper invent words, so only what the voice detector lets through is read. The speech
is followed by 9 s of silence, from which Whisper knows that it is over (without, it says the sentence again
and again), and read again in its 30 s where that was not enough: as accurate as 30 s for all, at a third of
the cost. Windows of as many whole seconds make batches in which no neighbour changes anything.
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from encoders.audio._voice import VoiceActivity, speech_spans, windows_of
from encoders.audio._whisper import (
    RATE_HZ,
    STEP,
    WINDOW_S,
    encoder_states,
    load_whisper,
    log_mel,
    mel_bands,
)
from encoders.audio._whisper_words import of_folder, of_tiny_en
from encoders.audio._word_times import token_steps, words_of
from encoders.batching import arithmetic, buckets, use_threads
from encoders.spec import Clip, Descriptor, Transcript, Word

_LONGEST_S = 28.0
_SILENCE_S = 9
_TOKENS_PER_S, _MIN_TOKENS, _MAX_TOKENS = 8, 12, 224
_MAX_REPETITION = 2.4
"""Text that compresses better than this is a loop, not speech."""

_MIN_LOG_PROBABILITY = -1.5


@dataclass(frozen=True)
class _Spoken:
    """One window after decoding."""

    tokens: list[int]
    log_probability: float
    words: list[Word]
    language: str
    ended: bool
    """False where the limit of tokens was met, which speech never does and loops always do."""


class WhisperRecogniser:
    """Wrapper of a Whisper, its tokenizer and a voice detector."""

    def __init__(
        self,
        descriptor: Descriptor,
        weights: Mapping[str, Path],
        *,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        use_threads(threads)
        self._device = device
        self._voice = None
        if "voice" in weights:
            self._voice = VoiceActivity.load(weights["voice"]).to(device)
        if "config" in weights:
            self._tokens = of_tiny_en(weights["config"], weights["tokenizer"])
        else:
            language = str(descriptor.options["language"])
            self._tokens = of_folder(weights["model"], language)
        self._timed = bool(descriptor.options["word_times"]) and bool(self._tokens.heads)
        self._never = torch.tensor(self._tokens.never, dtype=torch.long, device=device)
        self._never_first = torch.tensor(self._tokens.never_first, dtype=torch.long, device=device)
        model = load_whisper(weights["model"])
        model.set_attn_implementation("eager")  # the only one that hands out attention
        self._model = model.eval().to(device)
        self._bands = mel_bands(model.config.num_mel_bins).to(device)

    def transcribe(self, clips: Sequence[Clip]) -> list[Transcript]:
        """Transcript of each clip; empty where no speech is found."""
        windows = [
            (index, span)
            for index, clip in enumerate(clips)
            for span in self._speech(clip.waveforms[RATE_HZ])
        ]
        cuts = [_piece(clips[index], span) for index, span in windows]
        spoken = self._read_all(dict(enumerate(cuts)), _SILENCE_S)
        again = {i: cuts[i] for i, one in spoken.items() if not one.ended}
        spoken |= self._read_all(again, WINDOW_S)
        return [
            self._transcript(
                clip, [(windows[i][1][0], spoken[i]) for i in spoken_of(windows, index)]
            )
            for index, clip in enumerate(clips)
        ]

    def _speech(self, samples: np.ndarray) -> list[tuple[float, float]]:
        if self._voice is None:
            spans = [(0.0, len(samples) / RATE_HZ)] if len(samples) else []
        else:
            spans = speech_spans(self._voice.probabilities(samples))
        return windows_of(spans, _LONGEST_S)

    def _read_all(self, cuts: Mapping[int, np.ndarray], silence_s: int) -> dict[int, _Spoken]:
        """Decode each window with silence behind it, those of as many seconds together."""
        keys = list(cuts)
        seconds = [math.ceil(len(cuts[key]) / RATE_HZ) for key in keys]
        spoken: dict[int, _Spoken] = {}
        for group in buckets(seconds, max_items=16, max_steps=240, slack=1.0):
            chosen = [keys[position] for position in group]
            parts = [cuts[key] for key in chosen]
            found = self._read(parts, seconds[group[0]], silence_s)
            spoken.update(zip(chosen, found, strict=True))
        return spoken

    @torch.inference_mode()
    def _read(self, cuts: list[np.ndarray], speech_s: int, silence_s: int) -> list[_Spoken]:
        size = min(speech_s + silence_s, WINDOW_S) * RATE_HZ
        padded = [torch.from_numpy(np.pad(cut, (0, size - len(cut)))) for cut in cuts]
        mel = log_mel(padded, self._bands, self._device)
        with arithmetic(self._device):
            states = encoder_states(self._model.encoder, mel, [size // STEP] * len(cuts))[-1]
            limit = min(_MAX_TOKENS, _MIN_TOKENS + _TOKENS_PER_S * speech_s)
            states = states.float()
            prompts = self._prompts(states)
            tokens, scores = self._greedy(states, prompts, limit)
            out = []
            for row, (cut, state) in enumerate(zip(cuts, states, strict=True)):
                said = [t for t in tokens[row].tolist() if t < self._tokens.end]
                mean = float(scores[row].sum()) / max(1, len(said) + 1)
                prompt = prompts[row].tolist()
                words = self._words(prompt, said, state[None], len(cut) / RATE_HZ)
                language = self._language(prompt)
                out.append(_Spoken(said, mean, words, language, ended=len(said) < limit))
        return out

    def _prompts(self, states: Float[Tensor, "batch time dim"]) -> Int[Tensor, "batch tokens"]:
        """Start, language where the model knows several, task; the model names the language if asked."""
        facts = self._tokens
        start = torch.full((len(states), 1), facts.start, device=self._device)
        after = torch.tensor([facts.after], device=self._device).repeat(len(states), 1)
        if not facts.languages:
            return torch.cat([start, after], 1)
        if facts.language is not None:
            chosen = torch.full_like(start, facts.languages[facts.language])
        else:
            first = self._model.decoder(input_ids=start, encoder_hidden_states=states)
            ids = torch.tensor(sorted(facts.languages.values()), device=self._device)
            logits = first.last_hidden_state[:, -1].float() @ self._vocabulary.T
            chosen = ids[logits[:, ids].argmax(-1)][:, None]
        return torch.cat([start, chosen, after], 1)

    def _language(self, prompt: list[int]) -> str:
        names = {token: code for code, token in self._tokens.languages.items()}
        return names.get(prompt[1], "en")

    def _greedy(
        self, states: Float[Tensor, "batch time dim"], ids: Int[Tensor, "batch prompt"], limit: int
    ) -> tuple[Int[Tensor, "batch tokens"], Float[Tensor, "batch tokens"]]:
        """The likeliest next token until every row has ended; ended rows add nothing."""
        batch, end = len(states), self._tokens.end
        done = torch.zeros(batch, dtype=torch.bool, device=self._device)
        tokens, scores, cache = [], [], None
        for step in range(limit):
            result = self._model.decoder(
                input_ids=ids,
                encoder_hidden_states=states,
                cache=cache,
                use_cache=True,
            )
            cache = result.cache
            logits = result.last_hidden_state[:, -1].float() @ self._vocabulary.T
            logits[:, self._never] = -torch.inf
            logits[:, end + 1 :] = -torch.inf
            if step == 0:
                logits[:, self._never_first] = -torch.inf
            best = logits.log_softmax(-1).max(-1)
            chosen = torch.where(done, end, best.indices)
            scores.append(torch.where(done, 0.0, best.values))
            tokens.append(chosen)
            done |= chosen == end
            if bool(done.all()):
                break
            ids = chosen[:, None]
        return torch.stack(tokens, 1), torch.stack(scores, 1)

    @property
    def _vocabulary(self) -> Tensor:
        weight: Tensor = self._model.decoder.embed_tokens.weight
        return weight

    def _words(
        self, prompt: list[int], said: list[int], states: Tensor, length_s: float
    ) -> list[Word]:
        """Times of the words, by reading the finished text once more."""
        if not said or not self._timed:
            return []
        ids = torch.tensor([[*prompt, *said]], device=self._device)
        result = self._model.decoder(
            input_ids=ids, encoder_hidden_states=states, output_attentions=True
        )
        maps = [result.cross_attentions[layer][0, head] for layer, head in self._tokens.heads]
        steps = max(1, min(math.ceil(length_s * RATE_HZ / STEP), maps[0].shape[-1]))
        # The row that writes token i is the one before it.
        first = len(prompt) - 1
        rows = torch.stack(maps)[:, first : first + len(said), :steps].float().cpu().numpy()
        starts = token_steps(rows) * (STEP / RATE_HZ)
        pieces = [self._tokens.text([token]) for token in said]
        return words_of(pieces, starts.tolist(), length_s)

    def _transcript(self, clip: Clip, parts: Sequence[tuple[float, _Spoken]]) -> Transcript:
        texts, words, scores = [], [], []
        for offset, part in parts:
            text = self._tokens.text(part.tokens).strip()
            if not text or part.log_probability < _MIN_LOG_PROBABILITY or repeats(text):
                continue
            texts.append(text)
            scores.append(part.log_probability)
            shift = clip.audio_start_s + offset
            words += [Word(w.text, w.start_s + shift, w.end_s + shift) for w in part.words]
        return Transcript(
            text=" ".join(texts),
            words=words,
            language=parts[0][1].language if parts else self._tokens.language or "",
            confidence=float(np.exp(np.mean(scores))) if scores else 0.0,
        )


def repeats(text: str) -> bool:
    """Whether a text is one phrase over and over.

    >>> repeats("ha " * 60), repeats("What a day!")
    (True, False)
    """
    content = text.encode()
    return len(content) / len(zlib.compress(content)) > _MAX_REPETITION


def spoken_of(windows: Sequence[tuple[int, Any]], index: int) -> list[int]:
    """Positions of the windows of one clip, in time order."""
    return [position for position, (clip, _) in enumerate(windows) if clip == index]


def _piece(clip: Clip, span: tuple[float, float]) -> np.ndarray:
    start, end = (round(time * RATE_HZ) for time in span)
    return clip.waveforms[RATE_HZ][start:end]
