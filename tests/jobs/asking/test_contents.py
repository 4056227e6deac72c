"""What of a clip a model is shown: its words with those before them, its pictures, its sound."""

import base64
import io
import wave

import numpy as np
import pytest
from PIL import Image

from cluster.errors import ConfigError, Fault, MediaError
from encoders.clip import Clip, Frames
from encoders.media import Decoded
from jobs.asking.contents import LONGEST_AUDIO_S, RATE_HZ, Shower, check_shown, said_before

ROW = {
    "clip_id": 7,
    "video": {"uri": "/film.mp4", "offset": None, "size": None},
    "audio": {"uri": "/film.mp4", "offset": None, "size": None},
    "text": "so  funny\n",
    "words": None,
    "start_s": None,
    "end_s": None,
    "duration_s": 2.0,
}


class Decoder:
    """Stands in for the child process: a tone, and as many frames as are wanted."""

    def __init__(self, seconds=2.0, fault=None):
        self.seconds, self.fault, self.asked = seconds, fault, 0

    def decode(self, source, needs):
        self.asked += 1
        if self.fault:
            clip = Clip(clip_id=source.clip_id, duration_s=0.0)
            return Decoded(clip=clip, faults={"video": self.fault})
        tone = np.linspace(-1.5, 1.5, round(self.seconds * RATE_HZ), dtype=np.float32)
        frames = {
            policy: Frames(
                np.full((policy.count, 24, 32, 3), 200, np.uint8), np.arange(policy.count) / 2
            )
            for policy in needs.frames
        }
        return Decoded(
            clip=Clip(
                clip_id=source.clip_id,
                duration_s=self.seconds,
                waveforms=dict.fromkeys(needs.rates_hz, tone),
                frames=frames,
            )
        )


def data_of(part):
    if part["type"] == "input_audio":
        return base64.b64decode(part["input_audio"]["data"])
    kind, data = part["image_url"]["url"].split(",")
    assert kind == "data:image/jpeg;base64"
    return base64.b64decode(data)


def test_words_alone_decode_nothing():
    decoder = Decoder()
    (part,) = Shower(("text",), 4, decoder).parts(ROW, ())
    assert part == {"type": "text", "text": "What is said in the clip: so funny"}
    assert decoder.asked == 0


def test_pictures_are_jpegs_and_sound_is_a_wav_before_the_words():
    parts = Shower(("text", "audio", "frames"), 3, Decoder()).parts(ROW, ())
    assert [part["type"] for part in parts] == [*["image_url"] * 3, "input_audio", "text"]
    with Image.open(io.BytesIO(data_of(parts[0]))) as picture:
        assert (picture.format, picture.size) == ("JPEG", (32, 24))
    with wave.open(io.BytesIO(data_of(parts[3]))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (RATE_HZ, 1, 32_000)
        samples = np.frombuffer(file.readframes(32_000), "<i2")
    assert samples.min() == -32767
    assert samples.max() == 32767


def test_long_sound_and_long_words_are_cut():
    decoder = Decoder(seconds=LONGEST_AUDIO_S + 5)
    sound, words = Shower(("text", "audio"), 1, decoder).parts(ROW | {"text": "x" * 9000}, ())
    with wave.open(io.BytesIO(data_of(sound))) as file:
        assert file.getnframes() == LONGEST_AUDIO_S * RATE_HZ
    assert len(words["text"]) < 4100


def test_a_clip_with_nothing_to_show_shows_nothing():
    assert Shower(("text",), 1, Decoder()).parts(ROW | {"text": None}, ("ann: well",)) == []


def test_a_clip_that_cannot_be_read_says_why_unless_it_has_words():
    decoder = Decoder(fault=MediaError(Fault.TRUNCATED, "half a file"))
    with pytest.raises(MediaError, match="half a file"):
        Shower(("frames",), 1, decoder).parts(ROW, ())
    (part,) = Shower(("text", "frames"), 1, decoder).parts(ROW, ())
    assert part["type"] == "text"


def test_what_was_said_before_is_of_the_same_dialogue_and_never_from_the_future():
    rows = [
        {"clip_id": clip, "dialogue": dialogue, "turn": turn, "speaker": who, "text": f"line {clip}"}
        for clip, dialogue, turn, who in
        [(1, "a", 2, "joey"), (2, "a", 1, "ann"), (3, "a", 3, None), (4, "b", 0, "ann"), (5, None, None, "x")]
    ]  # fmt: skip
    before = said_before(rows, 2)
    assert before == {
        2: [],
        1: ["ann: line 2"],
        3: ["ann: line 2", "joey: line 1"],
        4: [],
    }
    assert said_before(rows, 0) == {}
    parts = Shower(("text",), 1, Decoder()).parts(ROW, before[3])
    assert parts[0]["text"] == "What was said before:\nann: line 2\njoey: line 1"


@pytest.mark.parametrize(
    ("shown", "frames"), [((), 4), (("text", "text"), 4), (("frames",), 0), (("frames",), 65)]
)
def test_nothing_and_no_number_of_frames_are_refused(shown, frames):
    with pytest.raises(ConfigError, match=r"--show|--frames"):
        check_shown(shown, frames)
