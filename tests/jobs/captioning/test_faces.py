"""Every face has a box, and the one that is read a colour of its own."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoders.registry import describe
from encoders.store import local_paths
from encoders.video._face import Face, FaceFinder, overlap
from jobs.captioning.faces import OTHER, READ, FaceBoxes, face_boxes, framed


def face(x, y, side=20.0):
    return Face((float(x), float(y)), side, 0.0, 0.9, 0.9, np.zeros((468, 3)))


def pixels_of(image, colour):
    """Rows and columns that have a colour."""
    return np.argwhere((image == colour).all(-1))


BOX = st.tuples(
    st.tuples(st.floats(-50, 50), st.floats(-50, 50)),
    st.floats(0.5, 80),
    st.just(0.0),
    st.just(1.0),
)


@given(BOX, BOX)
def test_boxes_share_between_nothing_and_all(one, other):
    assert 0 <= overlap(one, other) <= 1 + 1e-9
    assert overlap(one, other) == pytest.approx(overlap(other, one))
    assert overlap(one, one) == pytest.approx(1)


@pytest.mark.parametrize("read", [0, 1, None])
def test_only_the_face_that_was_read_has_its_own_colour(read):
    faces = [face(25, 30), face(70, 30)]
    image = framed(
        np.zeros((60, 100, 3), np.uint8), faces, None if read is None else faces[read].centre
    )
    coloured = [pixels_of(image[:, half], READ) for half in (slice(0, 50), slice(50, 100))]
    assert [len(found) > 0 for found in coloured] == [read == 0, read == 1]
    assert len(pixels_of(image, OTHER)) > 0
    if read == 0:
        assert coloured[0].min(0).tolist() == [20, 15]
        assert coloured[0].max(0).tolist() == [40, 35]


def test_a_box_may_reach_over_the_edge():
    image = framed(np.zeros((40, 40, 3), np.uint8), [face(2, 2, 30.0)], (2, 2))
    assert len(pixels_of(image, READ)) > 0


def test_a_bundle_that_reads_no_faces_marks_none(tmp_path):
    assert face_boxes([describe("logmel_stats")], str(tmp_path)) is None


@pytest.mark.slow
@pytest.mark.weights
class TestTheFinder:
    @pytest.fixture(scope="class")
    def finder(self):
        pytest.importorskip("ai_edge_litert", reason="the extra `offline` is not installed")
        needed = [w for w in describe("face_expression").weights if w.name in ("detector", "mesh")]
        paths = local_paths(needed)
        return FaceFinder(paths["detector"], paths["mesh"])

    @pytest.fixture(scope="class")
    def portraits(self):
        from jobs.datasets.corpus.face import EXPRESSIONS, paint, photograph
        from jobs.datasets.corpus.script import SPEAKERS

        draw = np.random.default_rng(0)
        return [
            photograph(paint(one.look, EXPRESSIONS["neutral"]), dx=0, dy=0, light=1.0, rng=draw)
            for one in SPEAKERS[:3]
        ]

    @pytest.mark.parametrize("count", [0, 1, 2, 3])
    def test_it_finds_each_face_once_and_the_surest_first(self, finder, portraits, count):
        empty = np.full_like(portraits[0], 128)
        picture = np.concatenate([*portraits[:count], *[empty] * (3 - count)], axis=1)
        faces = finder.find_all(picture)
        thirds = sorted(int(one.centre[0] // empty.shape[1]) for one in faces)
        assert thirds == list(range(count))
        assert [one.score for one in faces] == sorted((one.score for one in faces), reverse=True)
        surest = finder.find(picture)
        assert (surest is None) is (count == 0)
        if surest is not None:
            assert surest.centre == faces[0].centre

    def test_of_two_faces_one_box_is_of_the_one_that_was_read(self, finder, portraits):
        picture = np.concatenate(portraits[:2], axis=1)
        image = FaceBoxes(finder)(picture, 0.0)
        halves = np.split(image, 2, axis=1)
        read = [len(pixels_of(half, READ)) > 0 for half in halves]
        other = [len(pixels_of(half, OTHER)) > 50 for half in halves]
        assert sorted(read) == [False, True]
        assert other == [not each for each in read]
