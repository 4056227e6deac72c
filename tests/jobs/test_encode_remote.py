"""Sounds on a web server that stumbles: what passes on another try is encoded, the rest fails by name."""

import http.server
import threading
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from cluster import storage
from cluster.session import SessionConfig, ray_session
from jobs.__main__ import run
from jobs.catalog.features import read_features, resolve_features

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]
STUMBLES, NOT_THERE, DOWN = "0.wav", "5.wav", "6.wav"


@pytest.fixture
def server(tmp_path):
    """Serves the media folder: one file from the third request on, one never, one only by errors."""
    asked = Counter()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path / "media"))

        def do_GET(self):
            name = self.path.rsplit("/", 1)[-1]
            asked[name] += 1
            if name == DOWN or (name == STUMBLES and asked[name] < 3):
                self.send_error(503)
            elif name == NOT_THERE:
                self.send_error(404)
            else:
                super().do_GET()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_address[1]}", asked
        serving.shutdown()
        thread.join()


def test_a_read_that_fails_once_costs_nothing_and_one_that_always_fails_its_clip(
    toys, server, tmp_path
):
    address, asked = server
    toys.corpus.write_corpus(tmp_path, 12)
    (file,) = Path(tmp_path, "manifest").glob("*/*.parquet")
    table = storage.read_table(str(file))
    rows = table.to_pylist()
    for row in rows:
        row["audio"]["uri"] = f"{address}/{Path(row['audio']['uri']).name}"
    remote = pa.Table.from_pylist(rows, table.schema)
    storage.publish_table(remote, str(file), row_group_size=4)
    words = ["encode", "--root", str(tmp_path), "--encoders", "toy_audio", "--no-tracking"]
    words += ["--session.num-cpus", "2", "--session.num-gpus", "0", "--workers.gpus-per-actor", "0"]
    with ray_session(SessionConfig(num_cpus=2, num_gpus=0)):
        assert run(words) == 0
    found = read_features(str(tmp_path), resolve_features(str(tmp_path), "toy_audio")).to_pylist()
    errors = {row["clip_id"]: row["error"] for row in found if row["status"] != "ok"}
    assert sorted(errors) == [5, 6]
    assert errors[5].startswith("missing: ")
    assert errors[6].startswith("machine: ")
    assert asked[STUMBLES] >= 3
