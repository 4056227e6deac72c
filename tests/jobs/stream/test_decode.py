"""What the decoder is given of a clip: its sources, its text, and the texts around it."""

from cluster.errors import Fault, MediaError
from encoders.media import ClipSource, Source
from jobs.stream.decode import source_of, with_context
from jobs.stream.result_rows import undecoded


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
