"""SenseVoice small as a transcriber: the likeliest token at every step, repetitions and blanks left out.

A word lasts from its first token to the next word's; Chinese and Japanese characters are words by
themselves. Times are good to about 60 ms.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from encoders.audio._sensevoice import HOP_S, SenseVoice
from encoders.audio._sensevoice_net import EMOTION, EVENT, LANGUAGE, QUERIES, WRITTEN
from encoders.audio._sensevoice_tokens import BLANK
from encoders.audio._voice import VoiceActivity, speech_spans
from encoders.audio._voice import windows_of as joined
from encoders.audio._w2v_bert import FRAME, RATE_HZ
from encoders.audio._word_times import words_of
from encoders.audio.sensevoice import LANGUAGES
from encoders.spec import Clip, Descriptor, Transcript, Word

LONGEST_S = 28.0
LEAD_S = 0.03
"""By how much a step sees ahead of its time."""


class SenseVoiceRecogniser:
    """Wrapper of SenseVoice small and a voice detector."""

    def __init__(
        self,
        descriptor: Descriptor,
        weights: Mapping[str, Path],
        *,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        language = str(descriptor.options["language"])
        self._model = SenseVoice(descriptor, weights["model"], device=device, threads=threads)
        self._asked = [LANGUAGES[language], EMOTION, EVENT, WRITTEN]
        self._timed = bool(descriptor.options["word_times"])
        self._voice = None
        if "voice" in weights:
            self._voice = VoiceActivity.load(weights["voice"]).to(device)
        self._codes = [code for code in LANGUAGES if code != "auto"]
        self._languages = self._model.tokens.ids_of([f"<|{code}|>" for code in self._codes])

    def transcribe(self, clips: Sequence[Clip]) -> list[Transcript]:
        """Transcript of each clip; empty where no speech is found."""
        spans = [self._speech(clip.waveforms[RATE_HZ]) for clip in clips]
        cuts = [
            _piece(clip.waveforms[RATE_HZ], span)
            for clip, found in zip(clips, spans, strict=True)
            for span in found
        ]
        states = iter(self._model.read(cuts, self._asked, [-1]))
        return [
            self._transcript(clip, [(start, end, next(states)[-1]) for start, end in found])
            for clip, found in zip(clips, spans, strict=True)
        ]

    def _speech(self, samples: np.ndarray) -> list[tuple[float, float]]:
        if self._voice is None:
            spans = [(0.0, len(samples) / RATE_HZ)] if len(samples) else []
        else:
            spans = speech_spans(self._voice.probabilities(samples))
        return joined(spans, LONGEST_S)

    @torch.inference_mode()
    def _transcript(self, clip: Clip, parts: Sequence[tuple[float, float, Tensor]]) -> Transcript:
        texts, words, scores, votes = [], [], [], np.zeros(len(self._codes))
        for start_s, end_s, states in parts:
            logits = self._model.net.logits(states).cpu()
            votes += logits[LANGUAGE, self._languages].softmax(-1).numpy() * (end_s - start_s)
            best = logits[QUERIES:].log_softmax(-1).max(-1)
            said = list(_collapsed(best.indices.tolist()))
            pieces = [self._model.tokens.said(token) for _, token in said]
            text = "".join(pieces).strip()
            if not text:
                continue
            texts.append(text)
            scores += [float(best.values[step]) for step, _ in said]
            if self._timed:
                shift = clip.audio_start_s + start_s
                begins = [max(0.0, step * HOP_S - LEAD_S) for step, _ in said]
                words += [
                    Word(each.text, each.start_s + shift, each.end_s + shift)
                    for each in words_of(apart(pieces), begins, end_s - start_s)
                ]
        return Transcript(
            text=" ".join(texts),
            words=words,
            language=self._codes[int(votes.argmax())] if parts else "",
            confidence=float(np.exp(np.mean(scores))) if scores else 0.0,
        )


def apart(pieces: Sequence[str]) -> list[str]:
    """Pieces of which those that begin a word begin with a blank, as characters that are words do.

    >>> apart([" so", "ng", "\u6b4c", "\u66f2"])
    [' so', 'ng', ' \u6b4c', ' \u66f2']
    """
    return [
        f" {piece}" if piece[:1] >= "\u2e80" and piece[:1] < "\uac00" else piece for piece in pieces
    ]


def _collapsed(tokens: Sequence[int]) -> list[tuple[int, int]]:
    """First step and number of each token, repetitions and blanks left out.

    >>> _collapsed([0, 5, 5, 0, 5, 7])
    [(1, 5), (4, 5), (5, 7)]
    """
    runs = [list(run) for _, run in groupby(enumerate(tokens), key=lambda each: each[1])]
    return [run[0] for run in runs if run[0][1] != BLANK]


def _piece(samples: np.ndarray, span: tuple[float, float]) -> np.ndarray:
    cut = samples[slice(*(round(time * RATE_HZ) for time in span))]
    return np.pad(cut, (0, max(0, FRAME - len(cut))))
