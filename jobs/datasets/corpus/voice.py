"""A voice for the synthetic corpus: eSpeak NG, called as a library.

The library comes in the package `espeakng-loader` (GPL-3, so an extra of the demo; nothing of it is shipped
here). Its state is global to the process and goes on from sentence to sentence: use it from one thread, and
expect the same sentence to differ by a few milliseconds and in phase, not in pitch, melody or words.

Shapes: sample (16-bit mono).
"""

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.errors import MissingExtraError

_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: the samples come through the callback
_UTF8, _END_PAUSE = 1, 0x1000
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4  # espeak_PARAMETER


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """Prosody of a sentence, in eSpeak's own numbers."""

    pitch: float = 50
    """Base pitch [0..100], 50 is the voice's own."""

    pitch_range: float = 50
    """Melody [0..100]: 0 is monotone, 50 normal."""

    rate: float = 165
    """Words a minute [80..450]."""

    volume: float = 80
    """Loudness [0..200], 100 is full."""


class Voice:
    """eSpeak NG, loaded once a process.

    Raises:
        MissingExtraError: the package is not installed.
    """

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise MissingExtraError("the voice of the synthetic corpus", "demo") from error
        self._library: Any = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        self.rate_hz: int = self._library.espeak_Initialize(_SYNCHRONOUS, 0, data, 0)
        if self.rate_hz <= 0:
            raise MissingExtraError("the voice of the synthetic corpus", "demo")
        self._chunks: list[NDArray[np.int16]] = []
        signature = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
        )
        self._callback = signature(self._collect)  # the library keeps no reference to it
        self._library.espeak_SetSynthCallback(self._callback)

    def say(self, text: str, *, voice: str, delivery: Delivery) -> NDArray[np.int16]:
        """Samples of one sentence at `rate_hz`: [sample].

        Args:
            text: what is said.
            voice: eSpeak's name, a variant behind a plus sign, e.g. ``en-us+f3``.
            delivery: pitch, range, rate and volume.

        Raises:
            ValueError: eSpeak knows no such voice.
        """
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"eSpeak NG has no voice {voice!r}; for example en-us+m3")
        for parameter, value in (
            (_RATE, delivery.rate), (_VOLUME, delivery.volume),
            (_PITCH, delivery.pitch), (_RANGE, delivery.pitch_range),
        ):  # fmt: skip
            self._library.espeak_SetParameter(parameter, round(value), 0)
        self._chunks = []
        words = text.encode() + b"\0"
        self._library.espeak_Synth(
            words, ctypes.c_size_t(len(words)), 0, 0, 0, _UTF8 | _END_PAUSE, None, None
        )
        self._library.espeak_Synchronize()
        return np.concatenate(self._chunks) if self._chunks else np.zeros(0, np.int16)

    def _collect(self, samples: Any, count: int, _events: Any) -> int:
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        return 0  # 1 would stop the synthesis
