"""What the HTTP interface answers, to whom, and what it leaves behind."""

import csv
import io
import json
import math
import os
import socket
import stat
import threading
import time
import wave
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import affuse
from jobs import serve as serve_job
from jobs.serving.sniffing import suffix_of


def wav(seconds=0.5, loudness=0.5):
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        samples = loudness * np.sin(np.arange(int(8000 * seconds)) * 0.3)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return out.getvalue()


def upload(content, name="clip.wav"):
    return {"file": (name, content)}


def rooms(client):
    return [entry for entry in client.desk.folder.iterdir() if entry.is_dir()]


def ended(client, ticket_id):
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        state = client.get(f"/orders/{ticket_id}").json()
        if state["state"] in ("done", "refused"):
            return state
        time.sleep(0.1)
    raise AssertionError("no answer in time")


class TestPredict:
    def test_says_what_the_library_says(self, serve, toy_bundle, tmp_path):
        (tmp_path / "clip.wav").write_bytes(wav())
        row = {"clip": str(tmp_path / "clip.wav"), "text": "so it is"}
        (expected,) = affuse.load_bundle(toy_bundle).predict([row]).to_dict("records")
        with serve() as client:
            said = client.post("/predict", files=upload(wav()), data={"text": "so it is"}).json()
        assert said["label"] == expected["label"]
        assert {f"p_{name}": p for name, p in said["probabilities"].items()} == pytest.approx(
            {key: value for key, value in expected.items() if key.startswith("p_")}, abs=1e-6
        )

    def test_each_modality_says_what_is_said_without_the_others(self, serve):
        with serve() as client:
            both = client.post("/predict", files=upload(wav()), data={"text": "well"}).json()
            sound = client.post("/predict", files=upload(wav())).json()
            words = client.post("/predict", json={"text": "well"}).json()
        alone = {each["modality"]: each["probabilities"] for each in both["modalities"]}
        assert alone == {
            "audio": pytest.approx(sound["probabilities"], abs=1e-6),
            "text": pytest.approx(words["probabilities"], abs=1e-6),
        }

    def test_words_come_by_form_or_by_json(self, serve):
        with serve() as client:
            by_json = client.post("/predict", json={"text": "well"}).json()
            by_form = client.post("/predict", data={"text": "well"}).json()
        assert by_json["probabilities"] == by_form["probabilities"]
        assert sum(by_json["probabilities"].values()) == pytest.approx(1)
        assert isinstance(by_json["confidence"], float)

    def test_a_longer_clip_has_a_timeline_that_covers_it(self, serve):
        with serve() as client:
            said = client.post("/predict", files=upload(wav(21))).json()
        ends = [(piece["start_s"], piece["end_s"]) for piece in said["timeline"]]
        assert len(ends) == 4
        assert (ends[0][0], ends[-1][1]) == (0, pytest.approx(said["duration_s"], abs=1e-3))
        assert all(first[1] == second[0] for first, second in pairwise(ends))

    @pytest.mark.parametrize(
        ("ask", "status", "sentence"),
        [
            ({"files": upload(b"")}, 422, "is empty"),
            ({"files": upload(b"#EXTM3U\nfile:///etc/passwd")}, 415, "no sound, film or picture"),
            ({"files": upload(b"ffconcat version 1.0\nfile /etc/passwd")}, 415, "no sound, film"),
            ({"files": upload(b"RIFF1234WAVEbroken")}, 422, "clip.wav"),
            ({"files": upload(wav(61))}, 413, "at most 60 s"),
            ({"files": upload(b"RIFF1234WAVE" + bytes(2**20))}, 413, "at most 1 MB"),
            ({"json": {"text": "x" * 5001}}, 413, "5001 letters"),
            ({"json": {"text": 3}}, 422, "expected a form"),
            ({"json": {"text": " "}}, 422, "expected a form"),
            ({"json": []}, 422, "expected a form"),
            ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "no JSON"),
            ({"content": b"[" * 200_000, "headers": {"content-type": "application/json"}}, 400, ""),
            ({"content": b"x"}, 415, "expected a form"),
            ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, ""),
            ({"json": {"text": "\ud800"}}, 422, "surrogates"),
        ],
    )
    def test_what_cannot_be_answered_is_an_error_with_a_sentence(
        self, serve, tmp_path, ask, status, sentence
    ):
        if ask.get("json") == {"text": "\ud800"}:
            content = json.dumps(ask["json"]).encode()
            ask = {"content": content, "headers": {"content-type": "application/json"}}
        with serve(max_bytes=2**20) as client:
            answer = client.post("/predict", **ask)
            assert (answer.status_code, rooms(client)) == (status, [])
        assert sentence in answer.json()["error"]
        assert str(tmp_path) not in answer.text

    def test_a_body_without_a_length_is_cut_off(self, serve):
        with serve(max_bytes=1000) as client:
            blocks = (b"x" * 600 for _ in range(5))
            headers = {"content-type": "application/json"}
            assert client.post("/predict", content=blocks, headers=headers).status_code == 413

    def test_nothing_of_it_is_kept(self, serve):
        with serve() as client:
            assert client.post("/predict", files=upload(wav())).status_code == 200
            assert rooms(client) == []


class TestOrders:
    def test_only_who_holds_the_id_gets_the_answer_as_json_and_csv(self, serve):
        with serve() as client:
            ticket = client.post("/orders", files=upload(wav(), "=x.wav")).json()["id"]
            assert ended(client, ticket)["state"] == "done"
            whole = client.get(f"/orders/{ticket}/scores.json").json()
            table = client.get(f"/orders/{ticket}/scores.csv").text
            assert client.get("/orders/other").status_code == 404
        rows = list(csv.DictReader(io.StringIO(table)))
        assert rows[0]["name"] == "'=x.wav"
        shares = {name: float(rows[0][f"p_{name}"]) for name in whole["classes"]}
        assert shares == pytest.approx(whole["probabilities"])

    def test_the_place_in_the_queue_is_shown_and_answers_are_not_mixed(self, serve):
        with serve() as client:
            client.hand.gate.clear()
            first = client.post("/orders", json={"text": "the first"}).json()
            while client.get(f"/orders/{first['id']}").json()["state"] == "waiting":
                time.sleep(0.01)
            others = [client.post("/orders", json={"text": f"no {n}"}).json() for n in range(3)]
            places = [client.get(f"/orders/{each['id']}").json()["place"] for each in others]
            assert places == [1, 2, 3]
            client.delete(f"/orders/{others[0]['id']}")
            assert client.get(f"/orders/{others[1]['id']}").json()["place"] == 1
            client.hand.gate.set()
            texts = ["the first", "no 1", "no 2"]
            for each, text in zip([first, *others[1:]], texts, strict=True):
                said = ended(client, each["id"])["answer"]["probabilities"]
                assert said == client.post("/predict", json={"text": text}).json()["probabilities"]

    def test_a_full_queue_says_when_to_come_again(self, serve):
        with serve(queue=2) as client:
            client.hand.gate.clear()
            codes = [client.post("/orders", files=upload(wav())).status_code for _ in range(4)]
            assert codes[:2] == [202, 202]
            late = client.post("/orders", json={"text": "late"})
            assert (late.status_code, late.headers["retry-after"]) == (503, "60")
            assert len(rooms(client)) == codes.count(202)

    def test_a_room_is_closed_to_others_and_goes_in_time_and_at_the_end(self, serve):
        with serve(keep_s=0.2) as client:
            client.hand.gate.clear()
            ticket = client.post("/orders", files=upload(wav())).json()["id"]
            (room,) = rooms(client)
            for folder in (room, client.desk.folder):
                assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            client.hand.gate.set()
            deadline = time.monotonic() + 30
            while rooms(client) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert rooms(client) == []
            assert client.get(f"/orders/{ticket}").status_code == 404
            client.post("/orders", files=upload(wav()))
        assert not client.desk.folder.parent.exists()


class TestTheDoor:
    @pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[", "a b"])
    def test_a_strange_name_is_refused(self, serve, host):
        with serve() as client:
            assert client.get("/health", headers={"host": host}).status_code == 421

    @pytest.mark.parametrize(
        "headers",
        [
            {"origin": "https://evil.example"},
            {"origin": "null"},
            {"origin": "http://127.0.0.1:9999"},
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
        ],
    )
    def test_another_page_may_not_ask(self, serve, headers):
        with serve() as client:
            answer = client.post("/predict", json={"text": "well"}, headers=headers)
            assert answer.status_code == 403
            own = {"origin": "http://127.0.0.1:8700", "sec-fetch-site": "same-origin"}
            assert client.post("/predict", json={"text": "well"}, headers=own).status_code == 200

    def test_without_the_token_nothing_is_there_but_its_form(self, serve):
        with serve(token="a-token-of-24-letters-xx") as client:
            for path in ("/", "/facts", "/docs", "/openapi.json", "/orders/x", "/page.js"):
                assert client.get(path).status_code == 401
            assert client.post("/predict", json={"text": "well"}).status_code == 401
            page = client.get("/", headers={"accept": "text/html"})
            assert (page.status_code, page.headers["location"]) == (303, "/login")
            assert client.get("/health").json()["bundle"] == "b"

    def test_the_token_is_shown_in_a_header_an_address_or_the_form(self, serve):
        token = "a-token-of-24-letters-xx"
        with serve(token=token) as client:
            bearer = {"authorization": f"Bearer {token}"}
            assert client.get("/facts", headers=bearer).status_code == 200
            wrong = client.post("/login", data={"token": token + "x"})
            assert (wrong.headers["location"], wrong.cookies) == ("/login?wrong", {})
            right = client.post("/login", data={"token": token})
            assert "httponly" in right.headers["set-cookie"].lower()
            assert "samesite=strict" in right.headers["set-cookie"].lower()
            assert client.get("/facts").status_code == 200
            client.cookies.clear()
            assert client.get(f"/?token={token}").headers["location"] == "/"
            assert client.get("/facts").status_code == 200

    def test_guesses_and_orders_are_counted(self, serve):
        with serve(per_minute=3) as client:
            codes = [client.post("/predict", json={"text": "a"}).status_code for _ in range(5)]
            assert codes == [200] * 3 + [429] * 2
        with serve(per_minute=3, token="a-token-of-24-letters-xx") as client:
            codes = [client.post("/login", data={"token": str(n)}).status_code for n in range(5)]
            assert codes == [303] * 3 + [429] * 2

    @pytest.mark.parametrize("path", ["/predict", "/orders/x", "/health", "/page.js"])
    def test_a_method_that_is_not_taken_is_answered_with_those_that_are(self, serve, path):
        with serve() as client:
            answer = client.request("TRACE", path)
            assert answer.status_code == 405
            assert set(answer.headers["allow"].split(", ")) <= {"GET", "HEAD", "POST", "DELETE"}

    @pytest.mark.parametrize(
        "path", ["/", "/health", "/docs", "/page.js", "/facts", "/none", "/orders/x"]
    )
    @pytest.mark.parametrize("token", [None, "a-token-of-24-letters-xx"])
    def test_head_is_answered_as_get_without_a_body(self, serve, path, token):
        with serve(token=token) as client:
            head, get = client.head(path), client.get(path)
        assert head.status_code == get.status_code
        assert head.headers["content-length"] == get.headers["content-length"]
        assert not head.content

    def test_every_answer_forbids_foreign_content(self, serve):
        with serve() as client:
            for answer in (client.get("/"), client.get("/none"), client.post("/predict")):
                assert answer.headers["content-security-policy"].startswith("default-src 'self'")
                assert answer.headers["x-content-type-options"] == "nosniff"


class TestPages:
    def test_name_no_other_server_and_hold_no_script(self, serve):
        with serve() as client:
            for path in ("/", "/login", "/docs"):
                page = client.get(path)
                assert page.status_code == 200
                assert "<script>" not in page.text
                assert "style=" not in page.text
                assert 'src="http' not in page.text
                assert 'href="http' not in page.text

    def test_the_interface_describes_itself(self, serve):
        with serve() as client:
            described = client.get("/openapi.json").json()["paths"]
            page = client.get("/docs").text
        assert set(described["/predict"]["post"]["requestBody"]["content"]) == {
            "application/json",
            "multipart/form-data",
        }
        assert all(path in page for path in described)

    @pytest.mark.parametrize(
        ("base", "headers", "address"),
        [
            ("http://127.0.0.1:8734", {}, "http://127.0.0.1:8734"),
            ("http://[::1]:9000", {}, "http://HOST"),
            ("https://emotion.example.org", {}, "https://emotion.example.org"),
            (
                "http://emotion.example.org",
                {"x-forwarded-proto": "https"},
                "https://emotion.example.org",
            ),
            ("http://127.0.0.1", {"host": "a;id:80"}, "http://HOST"),
        ],
    )
    @pytest.mark.parametrize("token", [None, "a-token-of-24-letters-xx"])
    def test_examples_are_of_the_address_that_was_asked_and_need_what_it_needs(
        self, serve, base, headers, address, token
    ):
        shown = headers | ({} if token is None else {"authorization": f"Bearer {token}"})
        with serve(base=base, names=frozenset(), token=token) as client:
            page = client.get("/docs", headers=shown).text
        lines = [line for line in page.replace("<pre>", "\n").splitlines() if "curl" in line]
        assert len(lines) == 3
        for line in lines:
            assert f" {address}/predict" in line
            assert ('-H "Authorization: Bearer $TOKEN"' in line) == (token is not None)
        assert "a-token-of-24-letters-xx" not in page


KINDS = st.sampled_from(
    ["application/json", "multipart/form-data; boundary=x", "multipart/form-data",
     "application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=\xe9", ""]
)  # fmt: skip
STARTS = st.sampled_from(
    [b"", b"RIFF\x10\0\0\0WAVEfmt ", b"\x1a\x45\xdf\xa3", b"OggS", b"\0\0\0\x18ftypmp42",
     b"ID3\x04", b"\x89PNG\r\n\x1a\n", b"fLaC", b'{"text": ', wav()[:400]]
)  # fmt: skip
NAMES = st.text(max_size=30) | st.sampled_from(["../../x.wav", "/etc/passwd", "a\0b", "CON", ""])


@st.composite
def bodies(draw):
    """A form with a file of some sort, or bytes of any kind."""
    rest = draw(st.binary(max_size=300))
    if draw(st.booleans()):
        return draw(KINDS), draw(STARTS) + rest
    name = draw(NAMES).encode("utf-8", "replace").replace(b'"', b"%22")
    head = b'--x\r\ncontent-disposition: form-data; name="file"; filename="' + name + b'"\r\n\r\n'
    tail = draw(st.sampled_from([b"\r\n--x--\r\n", b"\r\n--x", b""]))
    return "multipart/form-data; boundary=x", head + draw(STARTS) + rest + tail


class TestStrangers:
    def ask(self, client, kind, body):
        headers = [(b"content-type", kind.encode("latin-1"))]
        answer = client.post("/predict", content=body, headers=headers)
        assert answer.status_code in (200, 400, 413, 415, 422)
        assert answer.status_code == 200 or answer.json()["error"]

    def left(self, client, folder):
        assert rooms(client) == []
        assert sorted(os.listdir(folder)) == [client.desk.folder.parent.name]

    def test_no_body_is_answered_by_a_fault_of_ours(self, serve, tmp_path):
        with serve() as client:

            @settings(max_examples=15, deadline=None)
            @given(bodies())
            def check(body):
                self.ask(client, *body)

            check()
            self.left(client, tmp_path)

    @given(st.binary(max_size=400))
    def test_a_playlist_or_script_is_never_taken_for_media(self, rest):
        for start in (b"#EXTM3U", b"ffconcat", b"v=0", b"<?xml", b"<svg", b"[playlist]", b"#!"):
            assert suffix_of(start + rest) in (None, ".amr")


class TestManyVisitors:
    @pytest.mark.slow
    @pytest.mark.timeout(600)
    @pytest.mark.parametrize("queue", [64, 8])
    def test_fifty_at_once_are_all_answered_with_their_own(self, serve, queue):
        """Where the queue holds fewer, those who are refused come again, and none is lost."""
        with serve(queue=queue) as client:
            said, refused, lock = {}, [], threading.Lock()

            def order(sound, number):
                return client.post("/orders", files=upload(sound, f"{number}.wav"))

            def visit(number):
                sound = wav(0.4, 0.1 + 0.8 * number / 50)
                while (asked := order(sound, number)).status_code == 503:
                    refused.append(asked.headers["retry-after"])
                    time.sleep(0.2)
                answer = ended(client, asked.json()["id"])["answer"]
                with lock:
                    said[number] = answer

            threads = [threading.Thread(target=visit, args=(number,)) for number in range(50)]
            client.hand.gate.clear()
            for thread in threads:
                thread.start()
            while queue < 50 and not refused and any(thread.is_alive() for thread in threads):
                time.sleep(0.05)
            client.hand.gate.set()
            for thread in threads:
                thread.join(300)
            assert bool(refused) == (queue < 50)
            assert {number: answer["name"] for number, answer in said.items()} == {
                number: f"{number}.wav" for number in range(50)
            }
            for number in (0, 17, 49):
                sound = wav(0.4, 0.1 + 0.8 * number / 50)
                again = client.post("/predict", files=upload(sound)).json()
                assert again["probabilities"] == pytest.approx(said[number]["probabilities"])
            assert all(math.isfinite(answer["confidence"]) for answer in said.values())


@pytest.mark.parametrize(
    ("flags", "host"),
    [
        ({}, "127.0.0.1"),
        ({"names": ("a.example",)}, "127.0.0.1"),
        ({"host": "0.0.0.0"}, socket.gethostname()),
        ({"host": "::"}, socket.gethostname()),
        ({"host": "10.0.0.5"}, "10.0.0.5"),
        ({"host": "fe80::1"}, "[fe80::1]"),
        ({"host": "0.0.0.0", "names": ("a.example", "b.example")}, "a.example"),
        ({"host": "10.0.0.5", "names": ("a.example",)}, "a.example"),
    ],
)
def test_the_address_that_is_printed_is_one_that_visitors_reach(flags, host, capsys, monkeypatch):
    monkeypatch.delenv("AFFUSE_SERVE_TOKEN", raising=False)
    config = serve_job.Config(**flags)
    serve_job.say_where(config, 8701, serve_job.rules_of(config))
    (line,) = [each for each in capsys.readouterr().out.splitlines() if each.startswith("open ")]
    assert line.partition("?")[0] == f"open http://{host}:8701/"
