"""Decoded clips survive the trip from decoder to encoder, without a copy at the end."""

import gc
import weakref

import numpy as np
import pyarrow as pa

from cluster.errors import Fault, MediaError
from encoders.media import Decoded
from encoders.spec import Clip, FramePolicy, Frames, Needs, Word
from jobs.stream.clip_buffer import pack, unpack

EVEN = FramePolicy(kind="even", count=4)
FPS = FramePolicy(kind="fps", rate_hz=2.0)
NEEDS = Needs(rates_hz=frozenset({16000, 8000}), frames=frozenset({EVEN, FPS}), text=True)


def full_clip(clip_id):
    rng = np.random.default_rng(clip_id)
    return Clip(
        clip_id=clip_id,
        duration_s=1.5,
        audio_start_s=0.25,
        waveforms={
            16000: rng.normal(size=24000).astype(np.float32),
            8000: rng.normal(size=12000).astype(np.float32),
        },
        frames={
            EVEN: Frames(rng.integers(0, 255, (4, 6, 8, 3), np.uint8), np.arange(4.0)),
            FPS: Frames(rng.integers(0, 255, (3, 5, 7, 3), np.uint8), np.arange(3.0)),
        },
        text="how are you",
        words=(Word("how", 0.0, 0.5),),
        context=(("before",), ("after", "later")),
    )


def test_everything_comes_back_as_it_was():
    fault = MediaError(Fault.TRUNCATED, "ends at 0.4 s")
    sent = [
        Decoded(clip=full_clip(1)),
        Decoded(clip=Clip(clip_id=2, duration_s=0.0), faults={"audio": fault}),
        Decoded(clip=full_clip(3), partial={"video": "capped"}),
    ]
    came = unpack(pack(sent, NEEDS), NEEDS)
    for before, after in zip(sent, came, strict=True):
        for rate, wave in before.clip.waveforms.items():
            np.testing.assert_array_equal(after.clip.waveforms[rate], wave)
        assert after.clip.frames.keys() == before.clip.frames.keys()
        for policy, frames in before.clip.frames.items():
            np.testing.assert_array_equal(after.clip.frames[policy].pixels, frames.pixels)
            np.testing.assert_array_equal(after.clip.frames[policy].times_s, frames.times_s)
        for name in ("clip_id", "duration_s", "audio_start_s", "text", "words", "context"):
            assert getattr(after.clip, name) == getattr(before.clip, name)
        assert {m: str(e) for m, e in after.faults.items()} == {
            m: str(e) for m, e in before.faults.items()
        }
        assert after.partial == before.partial


def test_arrays_are_views_of_the_buffer():
    buffer = pack([Decoded(clip=full_clip(1))], NEEDS)
    wave = unpack(buffer, NEEDS)[0].clip.waveforms[16000]
    start, size = buffer.address, buffer.size
    assert start <= wave.__array_interface__["data"][0] < start + size
    assert not wave.flags.writeable


def test_packing_lets_go_of_the_clip():
    clip = full_clip(1)
    pixels = weakref.ref(clip.frames[FPS].pixels)
    pack([Decoded(clip=clip)], NEEDS)
    del clip
    gc.collect()
    assert pixels() is None


def test_a_unit_without_any_clip_of_a_modality_is_packed_too():
    sent = [Decoded(clip=Clip(clip_id=1, duration_s=0.0, text="only words"))]
    assert unpack(pack(sent, NEEDS), NEEDS)[0].clip.frames == {}


def test_a_buffer_is_plain_arrow():
    with pa.ipc.open_stream(pack([Decoded(clip=full_clip(1))], NEEDS)) as reader:
        assert reader.schema.field("wave 16000").type == pa.large_binary()
