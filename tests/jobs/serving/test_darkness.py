"""Pictures in which no face can be seen for want of light are told from those that show none."""

import importlib

import numpy as np
import pytest
from PIL import Image

from encoders.media import Decoder
from jobs.serving.darkness import too_dark


@pytest.fixture(scope="module")
def decoder():
    with Decoder() as decoder:
        yield decoder


@pytest.mark.parametrize(("light", "dark"), [(0, True), (20, True), (30, False), (200, False)])
def test_a_picture_is_dark_where_nothing_in_it_is_bright(decoder, tmp_path, light, dark):
    Image.fromarray(np.full((60, 80, 3), light, np.uint8)).save(tmp_path / "a.png")
    assert too_dark(str(tmp_path / "a.png"), decoder) == dark


def test_a_lit_face_in_a_dark_room_is_not_dark(decoder, tmp_path):
    room = np.zeros((60, 80, 3), np.uint8)
    room[20:40, 30:50] = 120
    Image.fromarray(room).save(tmp_path / "a.png")
    assert not too_dark(str(tmp_path / "a.png"), decoder)


def test_a_film_is_looked_at_and_what_has_no_picture_is_not_dark(toys, decoder, tmp_path):
    importlib.import_module("toy_films").write_film(tmp_path / "a.mp4")
    importlib.import_module("toy_corpus")._write_sound(tmp_path / "a.wav", 0.5, 0.5)
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff broken")
    for name in ("a.mp4", "a.wav", "a.jpg"):
        assert not too_dark(str(tmp_path / name), decoder)


@pytest.mark.weights
def test_a_dark_picture_is_refused_with_the_reason(tmp_path):
    from cluster.errors import WeightsError
    from encoders import store
    from encoders.registry import describe
    from jobs.serving.judge import Order, open_judge
    from jobs.serving.refusal import RefusalError

    try:
        store.mirror(describe("face_expression").weights, store.DEFAULT_STORE)
    except WeightsError as error:
        pytest.skip(f"the offline weights cannot be had: {error}")
    judge = open_judge("face_expression", "", None, 60.0)
    for light, said in ((5, "too dark"), (200, "no face")):
        Image.fromarray(np.full((60, 80, 3), light, np.uint8)).save(tmp_path / "a.png")
        with pytest.raises(RefusalError) as refusal:
            judge.answer(Order(file=str(tmp_path / "a.png"), name="a.png"), lambda share: None)
        assert said in refusal.value.sentence
        assert ("too dark" in refusal.value.sentence) == (light == 5)
