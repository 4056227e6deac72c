"""The script of the synthetic corpus: the emotion of each clip, and how face, voice and words show it.

A clip has one true emotion y. The face shows f, the voice v, the words w; each is drawn from a table of its
own, so that each modality is informative and fails in its own way:

    face    is often neutral: almost half of the clips show no emotion                  P(f | y)
    voice   separates aroused from calm, but happy and surprised sound alike, and anger
            may be cold, which sounds neutral                                           P(v | y)
    words   are often neutral, whatever the emotion                                     P(w | y)

and one interaction: a share of happy and angry clips is ironic. The voice then has a manner of its own,
which does not separate happy from angry, and the words mean their opposite. Neither the voice nor the words
of such a clip show its emotion alone; together they do.

Given y (and irony) the three are independent, so the best accuracy that any reader of the clips can reach,
from one modality or from all, is a finite sum: `ceilings`. The tables below are constants of the corpus. They
were chosen on pilots with seed 0 so that no modality suffices by itself, the reading errors of the pretrained
models (none of the face, about a fifth of the words and of the manners) included. Figures on other seeds are
therefore the fairer ones.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jobs.datasets.corpus.face import Look

EMOTIONS = ("angry", "happy", "neutral", "surprised")
MODALITIES = ("face", "voice", "words")
IRONIC = "ironic"
MANNERS = (*EMOTIONS, IRONIC)
"""What a voice can sound like."""

Distribution = Mapping[str, float]

FACE: dict[str, Distribution] = {
    "angry": {"angry": 0.50, "happy": 0.01, "neutral": 0.47, "surprised": 0.02},
    "happy": {"angry": 0.01, "happy": 0.52, "neutral": 0.45, "surprised": 0.02},
    "neutral": {"angry": 0.02, "happy": 0.02, "neutral": 0.94, "surprised": 0.02},
    "surprised": {"angry": 0.01, "happy": 0.02, "neutral": 0.45, "surprised": 0.52},
}
VOICE: dict[str, Distribution] = {
    "angry": {"angry": 0.72, "happy": 0.02, "neutral": 0.22, "surprised": 0.04},
    "happy": {"angry": 0.02, "happy": 0.62, "neutral": 0.04, "surprised": 0.32},
    "neutral": {"angry": 0.04, "happy": 0.03, "neutral": 0.90, "surprised": 0.03},
    "surprised": {"angry": 0.03, "happy": 0.32, "neutral": 0.03, "surprised": 0.62},
}
WORDS: dict[str, Distribution] = {
    "angry": {"angry": 0.58, "happy": 0.01, "neutral": 0.40, "surprised": 0.01},
    "happy": {"angry": 0.01, "happy": 0.58, "neutral": 0.40, "surprised": 0.01},
    "neutral": {"angry": 0.03, "happy": 0.03, "neutral": 0.91, "surprised": 0.03},
    "surprised": {"angry": 0.01, "happy": 0.01, "neutral": 0.40, "surprised": 0.58},
}
IRONY_SHARE: Distribution = {"angry": 0.35, "happy": 0.25}
"""Share of clips of an emotion that are ironic."""
IRONIC_WORDS: dict[str, Distribution] = {
    "angry": {"angry": 0.05, "happy": 0.90, "neutral": 0.05, "surprised": 0.0},
    "happy": {"angry": 0.90, "happy": 0.05, "neutral": 0.05, "surprised": 0.0},
}
STRENGTH = (0.75, 1.0)
"""How strongly a face shows its expression, uniform between the two."""


@dataclass(frozen=True, kw_only=True)
class Speaker:
    """One person: face, voice and topics."""

    name: str
    voice: str
    """eSpeak NG's name of the voice."""
    pitch: float
    """Base pitch of the resting voice, eSpeak's 0 to 100."""
    topics: tuple[str, str, str, str]
    """Nouns that nobody else uses: no sentence is said by two speakers."""
    look: Look


@dataclass(frozen=True, kw_only=True)
class ScriptLine:
    """One clip before it is filmed."""

    name: str
    speaker: Speaker
    emotion: str
    face: str
    manner: str
    words: str
    sentence: str
    strength: float

    @property
    def ironic(self) -> bool:
        """Whether the words mean their opposite."""
        return self.manner == IRONIC


SENTENCES: dict[str, tuple[str, ...]] = {
    "angry": (
        "I hate this {x}, it's terrible.",
        "This awful {x} is ruined again.",
        "I am sick of this stupid {x}.",
        "The {x} is a disgrace.",
        "That {x} makes me so angry.",
        "Take this horrible {x} away.",
        "I can't stand that rotten {x}.",
        "Stop it, the {x} is the worst.",
    ),
    "happy": (
        "I love this wonderful {x}.",
        "What a lovely {x}, how nice.",
        "The {x} makes me really happy.",
        "This is the best {x} ever.",
        "I enjoy this delightful {x}.",
        "Such a beautiful {x}, thank you.",
        "Great, the {x} is a real pleasure.",
        "I am delighted with the {x}.",
    ),
    "neutral": (
        "The {x} is next to the door.",
        "I will write about the {x} today.",
        "The {x} comes on Monday at ten.",
        "We keep the {x} in the other room.",
        "There is one {x} on the list.",
        "He asked me about the {x}.",
        "They moved the {x} last week.",
        "The {x} is the second of three.",
    ),
    "surprised": (
        "I never expected that {x}.",
        "Wow, where did the {x} come from?",
        "I can't believe it, a {x} here?",
        "What, is that really the {x}?",
        "The {x} appeared out of nowhere!",
        "Incredible, suddenly there is a {x}!",
        "I had no idea about the {x}!",
        "The {x} is a total surprise!",
    ),
}


def write(seed: int, num_clips: int) -> list[ScriptLine]:
    """The lines of a corpus: speakers in turn, emotions balanced within each speaker.

    Args:
        seed: the corpus seed; equal seeds give equal lines, whatever their number.
        num_clips: how many.
    """
    lines = []
    for number, speaker in enumerate(SPEAKERS):
        rng = np.random.default_rng([seed, number])
        pools = {emotion: _pool(speaker, emotion, rng) for emotion in EMOTIONS}
        share = num_clips // len(SPEAKERS) + (number < num_clips % len(SPEAKERS))
        felt: list[str] = []
        for take in range(share):
            felt = felt or list(rng.permutation(EMOTIONS))
            lines.append(_line(speaker, take, str(felt.pop()), pools, rng))
    return lines


def _line(
    speaker: Speaker, take: int, emotion: str, pools: dict[str, list[str]], rng: np.random.Generator
) -> ScriptLine:
    ironic = rng.random() < IRONY_SHARE.get(emotion, 0.0)
    words = _draw((IRONIC_WORDS if ironic else WORDS)[emotion], rng)
    manner = _draw(VOICE[emotion], rng)
    return ScriptLine(
        name=f"{speaker.name}_{take:02d}",
        speaker=speaker,
        emotion=emotion,
        face=_draw(FACE[emotion], rng),
        manner=IRONIC if ironic else manner,
        words=words,
        sentence=pools[words].pop(),
        strength=float(rng.uniform(*STRENGTH)),
    )


def _pool(speaker: Speaker, emotion: str, rng: np.random.Generator) -> list[str]:
    every = [form.format(x=x) for form in SENTENCES[emotion] for x in speaker.topics]
    return [every[index] for index in rng.permutation(len(every))]


def _draw(distribution: Distribution, rng: np.random.Generator) -> str:
    names = list(distribution)
    return names[int(rng.choice(len(names), p=[distribution[name] for name in names]))]


def ceilings() -> dict[str, float]:
    """The best accuracy that the corpus allows, from each modality, each pair, and all of them.

    Exact: sum over what can be seen of max over y of P(y, seen), with P(y) uniform.
    """
    subsets = [s for n in (1, 2, 3) for s in itertools.combinations(MODALITIES, n)]
    return {"+".join(subset): _bayes_accuracy(subset) for subset in subsets}


def posterior(face: str, manner: str, words: str) -> dict[str, float]:
    """P(y | face, manner, words): what the best possible reader would answer."""
    joint = {y: _joint(y, face, manner, words) for y in EMOTIONS}
    total = sum(joint.values())
    return {y: value / total if total else 1 / len(EMOTIONS) for y, value in joint.items()}


def _bayes_accuracy(subset: Sequence[str]) -> float:
    seen: dict[tuple[str, ...], dict[str, float]] = {}
    for y, f, v, w in itertools.product(EMOTIONS, EMOTIONS, MANNERS, EMOTIONS):
        shown = {"face": f, "voice": v, "words": w}
        cell = seen.setdefault(tuple(shown[name] for name in subset), dict.fromkeys(EMOTIONS, 0.0))
        cell[y] += _joint(y, f, v, w)
    return sum(max(cell.values()) for cell in seen.values())


def _joint(y: str, face: str, manner: str, words: str) -> float:
    """P(y, face, manner, words)."""
    irony = IRONY_SHARE.get(y, 0.0)
    if manner == IRONIC:
        told = irony * IRONIC_WORDS[y][words] if irony else 0.0
    else:
        told = (1 - irony) * VOICE[y][manner] * WORDS[y][words]
    return FACE[y][face] * told / len(EMOTIONS)


SPEAKERS: tuple[Speaker, ...] = (
    Speaker(name="ada", voice="en-us+m5", pitch=47, topics=("soup", "kitchen", "dinner", "cake"),
            look=Look(skin=(0.93, 0.76, 0.66), hair=(0.42, 0.26, 0.14), width=0.44, long_hair=True,
                      lip_fullness=1.2, brow_weight=0.8, wall=(0.46, 0.52, 0.50))),
    Speaker(name="ben", voice="en-us+m1", pitch=33, topics=("train", "station", "ticket", "seat"),
            look=Look(wall=(0.45, 0.50, 0.55))),
    Speaker(name="cleo", voice="en-gb-x-rp", pitch=46, topics=("film", "cinema", "actor", "poster"),
            look=Look(skin=(0.74, 0.54, 0.42), hair=(0.10, 0.08, 0.07), height=0.60, eye_gap=0.19,
                      long_hair=True, shirt=(0.45, 0.20, 0.22))),
    Speaker(name="dan", voice="en-us+m3", pitch=31, topics=("garden", "tree", "fence", "flower"),
            look=Look(skin=(0.90, 0.70, 0.58), hair=(0.46, 0.34, 0.20), width=0.49, brow_weight=1.2,
                      wall=(0.56, 0.53, 0.46))),
    Speaker(name="eve", voice="en-us", pitch=48, topics=("song", "concert", "guitar", "band"),
            look=Look(skin=(0.96, 0.81, 0.72), hair=(0.60, 0.44, 0.24), width=0.43, height=0.61,
                      long_hair=True, iris=(0.25, 0.38, 0.48), shirt=(0.30, 0.42, 0.36))),
    Speaker(name="finn", voice="en-us+Gene", pitch=35, topics=("game", "team", "ball", "coach"),
            look=Look(skin=(0.92, 0.72, 0.60), hair=(0.62, 0.36, 0.18), width=0.46, fringe=0.05,
                      iris=(0.28, 0.40, 0.36), shirt=(0.50, 0.44, 0.28))),
    Speaker(name="gina", voice="en-gb-x-rp+m3", pitch=45, topics=("phone", "camera", "photo", "screen"),
            look=Look(skin=(0.68, 0.48, 0.36), hair=(0.14, 0.10, 0.08), width=0.45, long_hair=True,
                      lip_fullness=1.3, wall=(0.52, 0.47, 0.52))),
    Speaker(name="hugo", voice="en-us+m2", pitch=30, topics=("car", "road", "engine", "garage"),
            look=Look(skin=(0.84, 0.64, 0.52), hair=(0.24, 0.22, 0.22), width=0.50, height=0.63,
                      brow_weight=1.3, shirt=(0.20, 0.22, 0.24))),
    Speaker(name="iris", voice="en-us+m8", pitch=46, topics=("book", "library", "story", "letter"),
            look=Look(skin=(0.88, 0.70, 0.60), hair=(0.30, 0.14, 0.10), width=0.46, height=0.60,
                      long_hair=True, fringe=0.04, shirt=(0.36, 0.30, 0.46))),
    Speaker(name="jay", voice="en-gb-x-rp+m1", pitch=32, topics=("hotel", "beach", "island", "boat"),
            look=Look(skin=(0.66, 0.47, 0.35), hair=(0.09, 0.07, 0.06), width=0.48, height=0.61,
                      lip_fullness=1.2, wall=(0.44, 0.54, 0.58))),
    Speaker(name="kate", voice="en-us+Michael", pitch=44, topics=("dog", "cat", "horse", "farm"),
            look=Look(skin=(0.95, 0.78, 0.68), hair=(0.36, 0.30, 0.26), width=0.445, long_hair=True,
                      eye_gap=0.195, shirt=(0.24, 0.40, 0.48))),
    Speaker(name="leo", voice="en-us+edward", pitch=34, topics=("office", "meeting", "report", "desk"),
            look=Look(skin=(0.80, 0.60, 0.47), hair=(0.16, 0.12, 0.10), width=0.475, height=0.64,
                      brow_weight=1.1, fringe=0.03, shirt=(0.55, 0.56, 0.60))),
)  # fmt: skip
