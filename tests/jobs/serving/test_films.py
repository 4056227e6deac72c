"""A film comes back with the answer written on it, to the visitor who sent it and to nobody else."""

import importlib
import io
import time

import av
import numpy as np
import pytest

from jobs.captioning.captions import captions_of
from jobs.serving.captioned import rows_of


def film(folder, **options):
    path = folder / "made.mp4"
    importlib.import_module("toy_films").write_film(path, **options)
    return path.read_bytes()


def ended(client, order):
    deadline = time.monotonic() + 200
    while order["state"] not in ("done", "refused"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
        order = client.get(f"/orders/{order['id']}").json()
    return order


def order(client, content, name="my film.mp4"):
    return ended(client, client.post("/orders", files={"file": (name, content)}).json())


def pictures(content):
    with av.open(io.BytesIO(content)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def rooms(client):
    return [each for each in client.desk.folder.iterdir() if each.is_dir()]


@pytest.fixture
def made(tmp_path_factory, toys):
    return film(tmp_path_factory.mktemp("films"), seconds=1.0, size=(320, 240))


def test_the_answer_is_written_below_the_pictures_and_the_sound_stays(serve, made):
    with serve() as client:
        first = order(client, made)
        assert (first["answer"]["film"], first["film"]) == (True, False)
        assert client.get(f"/orders/{first['id']}/film.mp4").status_code == 404
        second = ended(client, client.post(f"/orders/{first['id']}/film").json())
        assert (second["film"], second["answer"]) == (True, first["answer"])
        answer = client.get(f"/orders/{second['id']}/film.mp4")
    assert answer.headers["content-type"] == "video/mp4"
    assert int(answer.headers["content-length"]) == len(answer.content)
    before, after = pictures(made), pictures(answer.content)
    assert len(after) == len(before)
    top, low = slice(0, 190), slice(192, 240)
    for old, new in zip(before, after, strict=True):
        assert np.abs(old[top].astype(int) - new[top, :320]).mean() < 4
        assert np.abs(old[low].astype(int) - new[low, :320]).mean() > 20
    with av.open(io.BytesIO(made)) as old, av.open(io.BytesIO(answer.content)) as new:
        sounds = [b"".join(bytes(p) for p in each.demux(audio=0)) for each in (old, new)]
    assert sounds[0] == sounds[1]


def test_each_piece_of_a_timeline_is_shown_while_it_lasts():
    said = {"confidence": 0.75, "probabilities": {"a": 0.75, "b": 0.25}, "value": None}
    answer = {
        "name": "x@5.mp4",
        "task": "mood",
        "status": "ok",
        "error": None,
        "label": "a",
        **said,
    }
    whole, *none = captions_of(rows_of({**answer, "timeline": []}), 5)
    assert (none, whole.start_s, whole.end_s, whole.title) == ([], 0.0, None, "mood: a  75%")
    pieces = [
        {"label": "a", "start_s": 0.0, "end_s": 5.0, **said},
        {"label": "b", "start_s": 5.0, "end_s": 10.0, **said},
    ]
    shown = captions_of(rows_of({**answer, "timeline": pieces}), 5)
    assert [(each.start_s, each.end_s) for each in shown] == [(0.0, 5.0), (5.0, 10.0)]
    assert [each.title for each in shown] == ["mood: a  75%", "mood: b  75%"]


@pytest.mark.parametrize("kind", ["sound", "picture", "words", "nothing"])
def test_what_is_no_film_has_none(serve, tmp_path, kind):
    from PIL import Image

    importlib.import_module("toy_corpus")._write_sound(tmp_path / "a.wav", 0.5, 0.5)
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    files = {"sound": "a.wav", "picture": "a.png"}
    with serve() as client:
        if kind == "nothing":
            there = {"id": "nobody"}
        elif kind == "words":
            there = ended(client, client.post("/orders", json={"text": "well"}).json())
        else:
            there = order(client, (tmp_path / files[kind]).read_bytes(), files[kind])
        for method, path in (("POST", "film"), ("GET", "film.mp4")):
            answer = client.request(method, f"/orders/{there['id']}/{path}")
            assert answer.status_code == 404
            assert answer.json()["error"]


def test_a_film_has_a_room_and_a_time_of_its_own(serve, made):
    with serve() as client:
        first = order(client, made)
        client.hand.gate.clear()
        second = client.post(f"/orders/{first['id']}/film").json()
        assert second["id"] != first["id"]
        client.delete(f"/orders/{first['id']}")  # the film is made all the same
        client.hand.gate.set()
        assert ended(client, second)["film"]
        assert client.get(f"/orders/{second['id']}/film.mp4").status_code == 200
        client.desk._keep_s = 0.1
        deadline = time.monotonic() + 60
        while rooms(client) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert rooms(client) == []
        assert client.get(f"/orders/{second['id']}/film.mp4").status_code == 404


def test_films_wait_in_the_queue_of_all(serve, made):
    with serve(queue=1) as client:
        first = order(client, made)
        client.hand.gate.clear()
        asked = [client.post(f"/orders/{first['id']}/film") for _ in range(4)]
        assert [each.status_code for each in asked].count(503) >= 2
        assert all(each.json()["error"] for each in asked if each.status_code == 503)
        client.hand.gate.set()


def test_pictures_that_end_in_the_middle_are_refused_with_a_sentence_or_written(
    serve, made, tmp_path
):
    """A file may be answered for its sound, and its pictures be beyond help."""
    spoiled = bytearray(made)
    start = made.index(b"mdat") + 4
    spoiled[start : start + 3000] = bytes(3000)
    with serve() as client:
        first = order(client, bytes(spoiled), "spoiled.mp4")
        if first["state"] == "done":
            second = ended(client, client.post(f"/orders/{first['id']}/film").json())
            assert second["film"] or second["error"].startswith("spoiled.mp4: no captions")
            assert str(tmp_path) not in str(second)
