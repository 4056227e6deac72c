"""A film of three sentences, said with three emotions, by real models: what is shown, and when."""

import itertools
import re
from pathlib import Path

import av
import numpy as np
import pytest

from encoders.media import probe
from jobs import annotate
from jobs.annotate import Config
from jobs.captioning.panel import Painter

pytest.importorskip("espeakng_loader", reason="the extra `demo` is not installed")
pytest.importorskip("ai_edge_litert", reason="the extra `offline` is not installed")

from jobs.datasets.corpus import film as filming
from jobs.datasets.corpus.script import SPEAKERS, ScriptLine
from jobs.datasets.corpus.voice import Voice

pytestmark = [pytest.mark.slow, pytest.mark.weights, pytest.mark.timeout(600)]

SAID = {
    "angry": "I am sick of this stupid dog.",
    "neutral": "The farm comes on Monday at ten.",
    "happy": "I love this wonderful horse.",
}
PAUSE_S = 0.9
FRAME_S = 1 / filming.FPS


@pytest.fixture(scope="module")
def talk(tmp_path_factory):
    """The film, and when each of its lines begins [s]."""
    voice = Voice()
    speaker = next(one for one in SPEAKERS if one.name == "kate")
    hop = voice.rate_hz // filming.FPS
    frames, sounds, starts = [], [], []
    for number, (emotion, sentence) in enumerate(SAID.items()):
        line = ScriptLine(
            name=f"line{number}", speaker=speaker, emotion=emotion, face=emotion, manner=emotion,
            words=emotion, sentence=sentence, strength=1.0,
        )  # fmt: skip
        for_sound, for_pictures = np.random.default_rng([0, number]).spawn(2)
        sound = filming._speak(line, voice, for_sound)
        sound = np.append(sound, np.zeros(round(PAUSE_S * voice.rate_hz), np.int16))
        sound = sound[: len(sound) // hop * hop]
        starts.append(sum(map(len, sounds)) / voice.rate_hz)
        frames += filming._act(line, filming._loudness(sound, voice.rate_hz), for_pictures)
        sounds.append(sound)
    path = tmp_path_factory.mktemp("talk") / "talk.mp4"
    filming.mux(frames, np.concatenate(sounds), voice.rate_hz, str(path))
    return path, starts


@pytest.fixture(scope="module")
def shown(talk):
    clip, _ = talk
    annotate.main(
        Config(
            clip=str(clip),
            bundle="face_expression",
            by="sentence",
            transcriber="whisper_tiny_en_asr",
        )
    )
    return clip.with_suffix(".annotated.mp4")


def subtitles_of(film):
    """Start [s], end [s] and title of each."""
    clock = r"(\d+):(\d+):(\d+),(\d+)"
    text = Path(film).with_suffix(".srt").read_text()
    found = re.findall(rf"{clock} --> {clock}\n(.*)\n", text)

    def seconds(hours, minutes, whole, thousandths):
        return int(hours) * 3600 + int(minutes) * 60 + int(whole) + int(thousandths) / 1000

    return [(seconds(*each[:4]), seconds(*each[4:8]), each[8]) for each in found]


def pictures_of(film):
    with av.open(str(film)) as container:
        return [
            (frame.time, frame.to_ndarray(format="rgb24").astype(int))
            for frame in container.decode(video=0)
        ]


def sound_of(film):
    with av.open(str(film)) as container:
        return np.concatenate([block.to_ndarray()[0] for block in container.decode(audio=0)])


def test_each_sentence_has_a_caption_with_its_emotion_while_it_is_said(talk, shown):
    _, starts = talk
    captions = subtitles_of(shown)
    assert [title.split()[1] for *_, title in captions] == list(SAID)
    ends = [*starts[1:], probe(str(shown)).duration_s]
    for (start_s, end_s, _), begin_s, over_s in zip(captions, starts, ends, strict=True):
        assert begin_s - 0.1 < start_s < begin_s + 0.5  # the line begins with a short silence
        assert start_s + 1.0 < end_s < over_s + 0.5
    for (_, end_s, _), (start_s, *_) in itertools.pairwise(captions):
        assert end_s <= start_s + 0.001


def test_the_pictures_change_their_caption_when_the_subtitles_do(shown):
    captions = subtitles_of(shown)
    pictures = pictures_of(shown)
    height = pictures[0][1].shape[0]
    strip = slice(height - Painter(256, 256, [], None).panel_px + 2, height - 2)

    def at(time_s):
        return min(pictures, key=lambda picture: abs(picture[0] - time_s))[1][strip]

    for (start_s, end_s, _), (then_s, *_) in itertools.pairwise(captions):
        early, late = at(start_s + 2 * FRAME_S), at(end_s - 2 * FRAME_S)
        other = at(then_s + 2 * FRAME_S)
        assert np.abs(late - other).mean() > 2 * np.abs(early - late).mean()


def test_length_and_sound_are_those_of_the_film(talk, shown):
    clip, _ = talk
    assert probe(str(shown)).duration_s == pytest.approx(probe(str(clip)).duration_s, abs=FRAME_S)
    before, after = pictures_of(clip), pictures_of(shown)
    assert [time for time, _ in after] == pytest.approx([time for time, _ in before], abs=0.002)
    assert np.array_equal(sound_of(clip), sound_of(shown))
