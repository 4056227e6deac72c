"""Signals at 16 kHz, the same on every machine: vowels of a source and filters, a tone, noise, pauses."""

import numpy as np

RATE_HZ = 16000
VOWELS = {"a": (730, 1090, 2440), "i": (270, 2290, 3010), "u": (300, 870, 2240)}


def voices():
    """Name -> samples that are whole numbers of 16 bits over 32768."""
    rise = np.linspace(150, 300, RATE_HZ)
    phrase = [
        vowel("a", np.full(6400, 120.0)),
        pause(3200),
        vowel("i", np.full(8000, 220.0)),
        pause(1600),
    ]
    signals = {
        "a at 120 Hz": vowel("a", np.full(RATE_HZ, 120.0)),
        "i at 220 Hz": vowel("i", np.full(RATE_HZ, 220.0)),
        "u rising": vowel("u", rise),
        "phrase": np.concatenate([*phrase, vowel("u", rise[:8000]), pause(4800)]),
        "hoarse": 0.3 * vowel("a", rise)
        + pause(RATE_HZ) * (20 + 60 * (np.arange(RATE_HZ) // 2000 % 2)),
        "tone": 0.3 * np.sin(2 * np.pi * 440 * np.arange(RATE_HZ) / RATE_HZ),
        "noise": pause(RATE_HZ) * 100,
    }
    return {name: np.round(signal * 32768) / 32768 for name, signal in signals.items()}


def vowel(name, hertz):
    """Harmonics under the curve of three resonances, each 80 to 160 Hz wide, with a little noise."""
    phase = 2 * np.pi * np.cumsum(hertz) / RATE_HZ
    total = np.zeros(len(hertz))
    for number in range(1, 40):
        at = number * hertz
        gain = sum(
            (width / 2) ** 2 / ((at - centre) ** 2 + (width / 2) ** 2)
            for centre, width in zip(VOWELS[name], (80, 110, 160), strict=True)
        )
        total += np.where(at < 7500, (gain + 0.01) / number, 0.0) * np.sin(number * phase)
    return 0.3 * total / np.abs(total).max() + pause(len(hertz))


def pause(length):
    """Noise of 60 dB below full scale, from integers alone."""
    state = (np.arange(1, length + 1, dtype=np.uint64) * np.uint64(2654435761)) % np.uint64(2**32)
    state = (state ^ (state >> np.uint64(13))) * np.uint64(1274126177) % np.uint64(2**32)
    return (state.astype(float) / 2**31 - 1) * 0.001
