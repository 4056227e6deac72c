"""The page in a browser: what it takes and shows, and that it shows what POST /predict says."""

import io
import shutil
import socket
import threading
import time
import wave
from contextlib import contextmanager

import av
import numpy as np
import pytest
import uvicorn
from PIL import Image

from jobs.serving.app import guarded
from jobs.serving.desk import Desk
from jobs.serving.facts import facts_of
from jobs.serving.guard import Rules
from jobs.serving.judge import open_judge

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
]  # fmt: skip
WAIT_MS = 120_000
LOOKS = [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")]


def sound(path, seconds, loudness):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        samples = loudness * np.sin(np.arange(int(8000 * seconds)) * 0.3)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return str(path)


def film(path, seconds):
    with av.open(str(path), "w") as output:
        picture = output.add_stream("libx264", rate=10)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        voice = output.add_stream("aac", rate=16000)
        for _ in range(10 * seconds):
            grey = np.full((48, 64, 3), 99, np.uint8)
            output.mux(picture.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        output.mux(picture.encode(None))
        tone = 0.9 * np.sin(np.arange(16000 * seconds) / 20).astype(np.float32)[None]
        block = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        block.sample_rate = 16000
        output.mux(voice.encode(block))
        output.mux(voice.encode(None))
    return str(path)


class Slow:
    """A hand of this process that lets the page be seen waiting."""

    def __init__(self, bundle):
        self.bundle, self.judge = bundle, None

    @property
    def ready(self):
        return self.judge is not None

    def warm(self):
        self.judge = open_judge(self.bundle, "", None, 60.0)

    def answer(self, order, report):
        time.sleep(0.3)
        return self.judge.answer(order, report)

    def close(self):
        pass


@pytest.fixture(scope="module")
def site(toys, tmp_path_factory):
    """The address of a server with the toy bundle."""
    root = tmp_path_factory.mktemp("site")
    toys.bundle.write_bundle(root, ear="toy_ear")
    bundle = str(root / "bundles" / "b")
    desk = Desk([Slow(bundle)], queue=64, keep_s=300.0, folder=str(root))
    rules = Rules(per_minute=10**6, max_bytes=2**20)
    app = guarded(desk, rules, facts_of(bundle, "", 1.0, 60.0, 300.0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join(60)


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="the extra `dev` brings playwright"
    )
    if BROWSER is None:
        pytest.skip("no chromium here: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, site):
    """Opens the page as a visitor of their own; nothing may be written to the console."""

    @contextmanager
    def opened(width=1280, scheme="light"):
        size = {"width": width, "height": 900}
        context = browser.new_context(
            viewport=size, color_scheme=scheme, base_url=site, accept_downloads=True
        )
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        said = []
        page.on("console", lambda line: said.append(line.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda asked: said.extend(strange(asked.url, site)))
        page.goto("/")
        page.wait_for_selector("#served:not(:empty)", state="attached")
        yield page
        context.close()
        # The browser itself writes there what the server refused.
        assert [line for line in said if not line.startswith("Failed to load resource")] == []

    return opened


def strange(url, site):
    return [] if url.startswith((site, "blob:", "data:")) else [url]


def send(page, file):
    page.click("#tab-upload")
    page.set_input_files("#file", file)
    page.click("#send")


def answered(page):
    page.wait_for_selector("#answer:not([hidden])")
    points = page.eval_on_selector_all(
        "#radar .point", "all => all.map(p => [p.dataset.class, Number(p.dataset.value)])"
    )
    return dict(points)


def predicted(page, site, file):
    with open(file, "rb") as content:
        form = {"file": {"name": "x", "mimeType": "audio/wav", "buffer": content.read()}}
    return page.request.post(f"{site}/predict", multipart=form).json()


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_it_fits_and_shows_a_clip_as_predict_says_it(visit, site, tmp_path, width, scheme):
    clip = film(tmp_path / "clip.mp4", 9)
    with visit(width, scheme) as page:
        send(page, clip)
        shares = answered(page)
        said = predicted(page, site, clip)
        assert shares == pytest.approx(said["probabilities"])
        assert page.inner_text("#label").lower() == said["label"]
        words = page.eval_on_selector_all(".word", "all => all.map(w => w.firstChild.textContent)")
        assert words == [word["text"] for word in said["transcript"]["words"]] == ["loud"]
        alone = page.eval_on_selector_all(".modality", "all => all.map(m => m.dataset.modality)")
        assert alone == [each["modality"] for each in said["modalities"]] == ["audio", "text"]
        assert page.locator("#timeline rect:not(.room)").count() == len(said["timeline"]) == 2
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        shot = Image.open(io.BytesIO(page.screenshot())).convert("L")
        assert (np.median(shot) < 100) == (scheme == "dark")


def test_a_film_is_taken_away_with_captions_and_deleted_with_its_answer(visit, tmp_path):
    with visit(390) as page:
        send(page, sound(tmp_path / "a.wav", 1, 0.8))
        answered(page)
        assert page.is_hidden("#film")
        page.click("#discard")
        send(page, film(tmp_path / "clip.mp4", 2))
        page.wait_for_selector("#film:visible")
        with page.expect_download(timeout=WAIT_MS) as download:
            page.click("#film")
        assert download.value.suggested_filename == "clip.captioned.mp4"
        with av.open(str(download.value.path())) as shown:
            assert shown.duration / av.time_base == pytest.approx(2, abs=0.15)
            assert [stream.type for stream in shown.streams] == ["video", "audio"]
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.click("#forget")
        page.wait_for_selector("#empty:visible")
        assert page.request.get(download.value.url).status == 404


def test_the_radar_is_drawn_to_scale(visit, tmp_path):
    with visit() as page:
        send(page, sound(tmp_path / "a.wav", 1, 0.8))
        shares = answered(page)
        places = page.eval_on_selector_all(
            "#radar .point", "all => all.map(p => [p.cx.baseVal.value, p.cy.baseVal.value])"
        )
        full = float(page.get_attribute("#radar svg", "data-full"))
    reach = np.linalg.norm(np.array(places) - 160, axis=1)
    assert reach == pytest.approx(np.array(list(shares.values())) / full * 112, abs=0.01)


def test_what_cannot_be_read_is_said_and_the_next_file_is_answered(visit, tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"RIFF1234WAVEbroken")
    (tmp_path / "note.txt").write_text("no sound")
    (tmp_path / "large.wav").write_bytes(b"RIFF1234WAVE" + bytes(2**20))
    expected = {"broken.wav": "broken.wav", "note.txt": "is no sound", "large.wav": "at most 1 MB"}
    with visit() as page:
        for name, sentence in expected.items():
            send(page, str(tmp_path / name))
            page.wait_for_selector("#problem:not([hidden])")
            assert sentence in page.inner_text("#problem")
            page.click("#discard")
        send(page, sound(tmp_path / "a.wav", 1, 0.8))
        assert len(answered(page)) == 3


def test_a_second_answer_back_and_reload_show_what_they_should(visit, tmp_path):
    with visit() as page:
        send(page, sound(tmp_path / "a.wav", 1, 0.2))
        first = answered(page)
        page.click("#discard")
        page.set_input_files("#file", sound(tmp_path / "b.wav", 1, 0.9))
        page.click("#send")
        page.wait_for_selector('.word:has-text("loud")')
        second = answered(page)
        assert second != first
        page.reload()
        assert answered(page) == second
        page.go_back()
        page.wait_for_selector('.word:has-text("quiet")')
        assert answered(page) == first
        page.click("#forget")
        page.wait_for_selector("#empty:visible")


def test_a_short_absence_of_the_server_costs_no_answer(visit, tmp_path):
    away = 3

    def answer(route):
        nonlocal away
        away -= 1
        return route.continue_() if away < 0 else route.abort()

    with visit() as page:
        page.route("**/orders/*", answer)
        send(page, sound(tmp_path / "a.wav", 1, 0.2))
        assert answered(page)
    assert away < 0


def test_where_the_token_is_another_by_now_the_page_says_where_to_enter_it(visit, tmp_path):
    """As after a restart of the server: what was chosen stays on the page."""
    refused = {"error": "a token is needed: Authorization: Bearer TOKEN"}
    with visit() as page:
        page.route("**/orders", lambda route: route.fulfill(status=401, json=refused))
        send(page, sound(tmp_path / "a.wav", 1, 0.2))
        page.wait_for_selector("#problem:visible")
        assert "Bearer" not in page.inner_text("#problem")
        link = page.locator("#problem a")
        assert (link.inner_text(), link.get_attribute("href")) == ("Enter the token", "/login")
        page.unroute("**/orders")
        page.click("#send")
        assert answered(page)


@pytest.mark.parametrize(
    ("modalities", "transcribes", "ways"),
    [
        (["audio", "text"], True, "Speak, film, upload or type"),
        (["audio"], False, "Speak, film or upload"),
        (["video"], False, "Film or upload"),
        (["video", "text"], False, "Film, upload or type"),
        (["text"], False, "Type"),
    ],
)
def test_the_page_offers_what_the_bundle_reads(browser, site, modalities, transcribes, ways):
    def facts(route):
        said = route.fetch().json()
        route.fulfill(json={**said, "modalities": modalities, "transcribes": transcribes})

    context = browser.new_context(base_url=site)
    page = context.new_page()
    page.route("**/facts", facts)
    page.goto("/")
    page.wait_for_selector("#served:not(:empty)", state="attached")
    page.wait_for_function("!document.querySelector('#empty').hidden")
    assert page.inner_text("#ways") == ways
    shown = [tab.inner_text() for tab in page.locator("[role=tab]:visible").all()]
    assert [name.lower() for name in shown] == ways.lower().replace(" or ", ", ").split(", ")
    chosen = page.locator("[role=tab][aria-selected=true]").inner_text()
    assert chosen == shown[0]
    context.close()


def test_the_microphone_is_recorded_played_back_and_answered(visit):
    with visit() as page:
        page.click("#panel-speak .record")
        page.wait_for_timeout(2000)
        page.click("#panel-speak .record")
        page.wait_for_selector("#player audio")
        page.click("#send")
        assert sum(answered(page).values()) == pytest.approx(1)


def test_the_camera_is_recorded_and_answered(visit):
    with visit() as page:
        page.click("#tab-film")
        page.click("#panel-film .record")
        page.wait_for_timeout(2000)
        page.click("#panel-film .record")
        page.wait_for_selector("#player video")
        page.click("#send")
        assert sum(answered(page).values()) == pytest.approx(1)


def test_two_visitors_at_once_get_their_own(visit, site, tmp_path):
    files = [sound(tmp_path / f"{n}.wav", 1, loudness) for n, loudness in enumerate((0.2, 0.9))]
    with visit() as first, visit(390) as second:
        pages = (first, second)
        for page, file in zip(pages, files, strict=True):
            send(page, file)
        for page, file in zip(pages, files, strict=True):
            assert answered(page) == pytest.approx(predicted(page, site, file)["probabilities"])


def test_everything_is_reached_by_keys_and_has_a_name(visit):
    with visit() as page:
        page.focus("#tab-speak")
        page.keyboard.press("ArrowLeft")
        assert page.is_visible("#text")
        page.focus("#text")
        page.keyboard.type("I am so glad")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert len(answered(page)) == 3
        nameless = page.eval_on_selector_all(
            "button, a, input, textarea, [role=img], progress",
            "all => all.filter(e => !(e.innerText || e.ariaLabel || e.labels?.length "
            "|| e.getAttribute('aria-labelledby') || e.getAttribute('aria-label'))"
            " && e.checkVisibility()).map(e => e.outerHTML)",
        )
        assert nameless == []
