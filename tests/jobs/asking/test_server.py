"""A server is asked politely, again where it may recover, and never where it would give something away."""

import threading
import time

import pytest

from cluster.errors import ConfigError, ServerError
from jobs.asking import server as servers
from jobs.asking.server import Limits, RefusedError, Server, checked_url
from tests.jobs.asking.fake_server import Fake, serving

QUICK = Limits(pause_s=0.01, tries=3)
BODY = {"model": "m", "messages": [{"role": "user", "content": "Which?\nA) calm\nB) glad"}]}


@pytest.fixture
def fake():
    with serving(Fake(model=lambda text, options: [1 / len(options)] * len(options))) as fake:
        yield fake


class TestUrl:
    @pytest.mark.parametrize(
        "url",
        ["http://127.0.0.1:8000/v1", "http://localhost/v1", "http://[::1]:1/v1", "http://127.9.9.9",
         "https://host.example/v1", "https://10.0.0.7:8443"],
    )  # fmt: skip
    def test_loopback_and_https_are_asked(self, url):
        assert checked_url(url)

    @pytest.mark.parametrize(
        ("url", "said"),
        [
            ("http://10.0.0.7:8000/v1", "in the clear"),
            ("http://localhost.evil.example/v1", "in the clear"),
            ("http://127.0.0.1.evil.example", "in the clear"),
            ("https://ann:hunter2@host/v1", "AFFUSE_ASK_TOKEN"),
            ("https://host/v1?key=hunter2", "AFFUSE_ASK_TOKEN"),
            ("https://host/v1#x", "AFFUSE_ASK_TOKEN"),
            ("file:///etc/passwd", "expected a URL"),
            ("127.0.0.1:8000", "expected a URL"),
            ("http://", "expected a URL"),
            ("http://127.0.0.1:port", "--server"),
            ("", "expected a URL"),
            ("http://127.0.0.1:8000/a b", "without spaces"),
            ("https://host/\x00", "without spaces"),
            ("https://\u00fcni.example/v1", "xn--"),
            ("https://ann:hun ter2@host/v1 hunter2", "AFFUSE_ASK_TOKEN"),
        ],
    )
    def test_others_are_refused_and_no_password_is_repeated(self, url, said):
        with pytest.raises(ConfigError, match=said) as caught:
            checked_url(url)
        assert "hunter2" not in str(caught.value)


class TestToken:
    def test_it_comes_from_the_environment_and_goes_into_a_header(self, fake, monkeypatch):
        monkeypatch.setenv(servers.TOKEN, "s3cret")
        Server(fake.url, QUICK).ask(BODY)
        assert fake.headers[0]["Authorization"] == "Bearer s3cret"
        assert "s3cret" not in fake.words

    def test_a_line_break_at_its_end_is_no_part_of_it(self, fake, monkeypatch):
        monkeypatch.setenv(servers.TOKEN, " s3cret\n")
        Server(fake.url, QUICK).ask(BODY)
        assert fake.headers[0]["Authorization"] == "Bearer s3cret"

    @pytest.mark.parametrize("token", ["s3cret\nX-Other: 1", "s3cret\u20ac", "s3cret two"])
    def test_one_that_no_header_holds_is_refused_and_not_repeated(self, fake, monkeypatch, token):
        monkeypatch.setenv(servers.TOKEN, token)
        with pytest.raises(ConfigError, match=servers.TOKEN) as caught:
            Server(fake.url, QUICK)
        assert "s3cret" not in str(caught.value)

    def test_without_one_none_is_sent(self, fake, monkeypatch):
        monkeypatch.delenv(servers.TOKEN, raising=False)
        Server(fake.url, QUICK).ask(BODY)
        assert "Authorization" not in fake.headers[0]


class TestFailures:
    @pytest.mark.parametrize("status", [0, 429, 500, 503])
    def test_what_may_pass_is_asked_again(self, fake, status):
        fake.fails = lambda number: status if number < 2 else None
        assert Server(fake.url, QUICK).ask(BODY)["choices"]
        assert len(fake.bodies) == 3

    @pytest.mark.parametrize("status", [0, 502])
    def test_after_some_tries_the_job_stops_in_one_line(self, fake, status):
        fake.fails = lambda number: status
        with pytest.raises(ServerError, match=r"http://127.*3 times") as caught:
            Server(fake.url, QUICK).ask(BODY)
        assert "\n" not in str(caught.value)
        assert len(fake.bodies) == 3

    @pytest.mark.parametrize("status", [301, 400, 401, 404, 422])
    def test_a_refusal_is_not_repeated(self, fake, status):
        fake.fails = lambda number: status
        with pytest.raises(RefusedError) as caught:
            Server(fake.url, QUICK).ask(BODY)
        assert (caught.value.status, len(fake.bodies)) == (status, 1)

    def test_a_server_that_is_not_there_is_named(self):
        with pytest.raises(ServerError, match=r"127.0.0.1:9/v1: does not answer"):
            Server("http://127.0.0.1:9/v1", QUICK).ask(BODY)

    @pytest.mark.parametrize("mood", ["slow", "drips"])
    def test_a_reply_has_to_be_whole_in_time(self, fake, mood):
        fake.delay_s, fake.drips = (5.0, False) if mood == "slow" else (0.0, True)
        begun = time.monotonic()
        with pytest.raises(ServerError, match=r"no answer within 0.3 s, 2 times"):
            Server(fake.url, Limits(timeout_s=0.3, tries=2, pause_s=0)).ask(BODY)
        assert time.monotonic() - begun < 4

    def test_a_page_that_is_no_api_is_said(self, fake, monkeypatch):
        monkeypatch.setattr(servers, "MAX_REPLY", 10)
        with pytest.raises(ServerError, match="a reply of more than"):
            Server(fake.url, QUICK).ask(BODY)

    @pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff\xfe", b"<html>", b"[1]", b""])
    def test_content_that_is_no_object_is_said_in_one_line(self, fake, content):
        fake.content = content
        with pytest.raises(ServerError, match="is it an API base") as caught:
            Server(fake.url, QUICK).ask(BODY)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        "content", [b"[" * 9000, b"\xff", b"[1]", b'{"error": [1]}', b"a\nb", b""]
    )
    def test_a_refusal_in_any_words_is_one(self, fake, content):
        fake.content, fake.fails = content, lambda number: 400
        with pytest.raises(RefusedError) as caught:
            Server(fake.url, QUICK).ask(BODY)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("wait", ["\u00b2", "-1", "1e9", "Wed, 21 Oct 2015 07:28:00 GMT", ""])
    def test_a_wish_for_a_pause_that_is_no_number_is_none(self, fake, wait):
        fake.fails, fake.wait = lambda number: 429 if number == 0 else None, wait
        assert Server(fake.url, QUICK).ask(BODY)["choices"]

    def test_once_it_is_given_up_threads_that_wait_stop_too(self, fake):
        fake.fails = lambda number: 503
        server = Server(fake.url, Limits(pause_s=20, tries=2))
        found = []

        def ask():
            try:
                server.ask(BODY)
            except ServerError as error:
                found.append(error)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        server.close()
        for thread in threads:
            thread.join(10)
        assert len(found) == 3

    @pytest.mark.parametrize("tries", [1, 3])
    def test_every_thread_tells_the_first_reason_whichever_is_heard(self, tries):
        """One is away and says so; others wait for their next try or for a reply meanwhile."""
        server = Server("http://127.0.0.1:9/v1", Limits(pause_s=0.01, tries=tries))
        found = []

        def ask():
            try:
                server.ask(BODY)
            except ServerError as error:
                found.append(str(error))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert len(found) == 8
        assert all(f"does not answer (Connection refused), {tries} time" in each for each in found)

    def test_one_that_is_hung_up_blames_no_time_limit(self, fake):
        fake.delay_s = 5.0
        server = Server(fake.url, Limits(tries=1))
        found = []

        def ask():
            with pytest.raises(ServerError) as caught:
                server.ask(BODY)
            found.append(str(caught.value))

        thread = threading.Thread(target=ask)
        thread.start()
        while not fake.bodies:
            time.sleep(0.01)
        server.close("status 503, 1 time")
        thread.join(10)
        assert found == [f"{fake.url}: status 503, 1 time"]


class TestPace:
    def test_questions_are_spread_over_the_minute(self, fake):
        server = Server(fake.url, Limits(per_minute=600))
        begun = time.monotonic()
        for _ in range(4):
            server.ask(BODY)
        assert time.monotonic() - begun >= 0.3

    @pytest.mark.parametrize(
        "wrong",
        [{"at_once": 0}, {"tries": 0}, {"timeout_s": 0}, {"pause_s": -1}, {"per_minute": -1}],
    )
    def test_a_limit_that_is_none_is_refused(self, wrong):
        with pytest.raises(ConfigError, match="--limits"):
            Limits(**wrong)
