"""Decoded clips survive the trip from decoder to encoder, without a copy at the end."""

import gc
import weakref

import numpy as np
import pyarrow as pa

from cluster.errors import Fault, MediaError
from encoders.media import ClipSource, Decoded, Source
from encoders.spec import Clip, FramePolicy, Frames, Needs, Word
from jobs.stream.clip_buffer import pack, source_of, undecoded, unpack, with_context

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


def test_a_manifest_row_becomes_what_the_decoder_reads():
    source = {"uri": "a.tar", "offset": 10, "size": 20}
    row = dict.fromkeys(("video", "text", "words", "start_s", "end_s"))
    row |= {"clip_id": 7, "audio": source, "duration_s": 2.0}
    assert source_of(row) == ClipSource(clip_id=7, audio=Source("a.tar", 10, 20), duration_s=2.0)


def test_what_cannot_be_read_keeps_its_text_and_names_the_fault_of_each_source():
    source = ClipSource(clip_id=1, audio=Source("a.wav"), text="hello")
    left = undecoded(source, MediaError(Fault.CRASHED, "x"))
    assert left.clip.text == "hello"
    assert set(left.faults) == {"audio"}


def test_a_buffer_is_plain_arrow():
    with pa.ipc.open_stream(pack([Decoded(clip=full_clip(1))], NEEDS)) as reader:
        assert reader.schema.field("wave 16000").type == pa.large_binary()


def test_a_clips_context_is_the_texts_of_its_own_dialogue_in_order_of_turn():
    rows = [
        {"clip_id": 3, "name": "c", "dialogue": "d", "turn": 2, "text": "bye"},
        {"clip_id": 1, "name": "a", "dialogue": "d", "turn": 0, "text": "hello"},
        {"clip_id": 2, "name": "b", "dialogue": "d", "turn": 1, "text": None},
        {"clip_id": 4, "name": "e", "dialogue": None, "turn": None, "text": "alone"},
    ]
    context = {row["clip_id"]: row["context"] for row in with_context(rows)}
    assert context == {
        1: ((), ("bye",)),
        2: (("hello",), ("bye",)),
        3: (("hello",), ()),
        4: ((), ()),
    }


def test_the_context_reaches_the_decoder():
    row = {"clip_id": 1, "video": None, "audio": None, "text": "hi", "words": None}
    row |= {"start_s": None, "end_s": None, "duration_s": None, "context": (("so",), ())}
    assert source_of(row).context == (("so",), ())
