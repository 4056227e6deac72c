"""Passes over the clips: each loads the models that it runs, and finds what earlier ones published."""

import sys
from pathlib import Path

import pytest

from encoders import ENCODERS, TRANSCRIBERS
from encoders.registry import describe
from jobs.catalog.manifest import UnitRef
from jobs.stream.job import Todo, UnitTask, Work
from jobs.stream.pending import in_order, restricted
from jobs.stream.workbench import Workbench

TOYS = str(Path(__file__).parents[1] / "toys")


@pytest.fixture(scope="module")
def work():
    """A transcriber, a reader of words and a listener."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOYS)
        patch.setitem(ENCODERS, "toy_audio", "toy_audio")
        patch.setitem(ENCODERS, "toy_text", "toy_text")
        patch.setitem(TRANSCRIBERS, "toy_ear", "toy_ear")
        ear = describe("toy_ear")
        text = describe("toy_text", upstream=(ear.fingerprint,))
        yield Work(descriptors=(text, describe("toy_audio")), transcriber=ear, store="nowhere")
        for name in [name for name in sys.modules if name.startswith("toy_")]:
            del sys.modules[name]


def tasks(work, *, transcribe):
    ref = UnitRef(unit="u", file="f", row_group=0, num_clips=3, cost=1.0)
    both = tuple(work.by_folder)
    return [UnitTask(ref=ref, todo=Todo(encoders=both, transcribe=transcribe))]


def names_of(work):
    return [work.transcriber.folder, *(item.folder for item in work.descriptors)]


def loads_an_ear(work):
    return Workbench(work)._transcribe is not None


def test_only_the_pass_that_transcribes_loads_the_transcriber(work):
    ear, text, audio = names_of(work)
    for names, expected in (([ear], True), ([ear, audio], True), ([text], False), ([audio], False)):
        part, part_tasks = restricted(work, tasks(work, transcribe=True), names)
        assert loads_an_ear(part) == expected
        assert part.transcriber == work.transcriber  # what it published is still found
        assert [task.todo.transcribe for task in part_tasks] == [expected]


def test_where_everything_is_heard_already_nothing_listens_again(work):
    part, _ = restricted(work, tasks(work, transcribe=False), names_of(work))
    assert not loads_an_ear(part)


def test_the_transcribers_pass_comes_before_those_that_read_it(work):
    ear, text, audio = names_of(work)
    assert in_order([(text,), (audio,), (ear,)], work) == [(ear,), (text,), (audio,)]
