"""A remote read that fails and would pass is tried again; one that cannot pass costs its clip at once."""

import errno
import http.server
import threading
from contextlib import contextmanager

import pytest

from cluster.errors import Fault, MediaError
from encoders.decoding import sources
from encoders.media import Source, probe

CONTENT = bytes(range(256)) * 40


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr(sources, "FIRST_PAUSE_S", 0.001)


@contextmanager
def server(status, failures):
    """A web server that answers GET with a status so many times before it serves; yields address, counts."""
    left = {"GET": failures}
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if left["GET"] > 0:
                left["GET"] -= 1
                self.send_error(status)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT)

        def do_HEAD(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{serving.server_address[1]}/clip.bin", asked
        finally:
            serving.shutdown()
            thread.join()


def read(uri, offset=None, size=None):
    with sources.staged(Source(uri, offset, size)) as local:
        return local.binary().read()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_fails_twice_costs_nothing(status):
    with server(status, 2) as (uri, _):
        assert read(uri) == CONTENT


@pytest.mark.parametrize("status", [500, 503])
def test_a_server_that_keeps_failing_is_the_machines_fault(status):
    with server(status, 1000) as (uri, _), pytest.raises(MediaError) as raised:
        read(uri)
    assert raised.value.fault == Fault.MACHINE


@pytest.mark.parametrize(
    ("status", "fault"), [(404, Fault.MISSING), (410, Fault.MISSING), (403, Fault.UNREADABLE)]
)
def test_what_cannot_pass_is_the_clips_and_not_asked_for_again(status, fault, monkeypatch):
    monkeypatch.setattr(sources.time, "sleep", lambda _: pytest.fail("it was tried again"))
    with server(status, 1000) as (uri, _), pytest.raises(MediaError) as raised:
        read(uri)
    assert raised.value.fault == fault


def test_nobody_at_the_address_is_the_machines_fault():
    with server(200, 0) as (uri, _):
        pass
    with pytest.raises(MediaError) as raised:
        read(uri)
    assert raised.value.fault == Fault.MACHINE
    with pytest.raises(MediaError) as raised:
        probe(Source(uri))
    assert raised.value.fault == Fault.MACHINE


class Torn:
    """A file that breaks off in the middle, so many times."""

    def __init__(self, failures):
        self.failures = failures
        self.at = 0

    def read(self, _):
        if self.at and self.failures:
            self.failures -= 1
            self.at = 0
            raise ConnectionResetError("the peer is gone")
        piece = CONTENT[self.at : self.at + 1000]
        self.at += len(piece)
        return piece

    def close(self):
        self.at = 0


@pytest.mark.parametrize("failures", [0, 1, 3])
def test_a_copy_that_broke_off_begins_anew(monkeypatch, failures):
    import fsspec

    torn = Torn(failures)
    system = type("System", (), {"open": lambda self, path, mode: torn})()
    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda uri: (system, uri))
    assert read("torn://clip.bin") == CONTENT


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_no_room_for_the_copy_is_the_machines_fault(monkeypatch, number):
    def full(*_, **__):
        raise OSError(number, "no room")

    monkeypatch.setattr(sources, "scratch_folder", full)
    with pytest.raises(MediaError) as raised:
        read("memory://clip.bin")
    assert raised.value.fault == Fault.MACHINE
