"""Storage: the published file is the commit."""

import functools
import http.server
import os
import socket
import threading

import fsspec
import pyarrow as pa
import pytest

from cluster import storage
from cluster.errors import NotPreparedError, StorageError


@pytest.fixture(params=["disk", "memory"])
def root(request, tmp_path):
    if request.param == "disk":
        yield str(tmp_path / "root")
    else:
        yield f"memory://{tmp_path.name}"
        fsspec.filesystem("memory").store.clear()


def test_what_is_published_is_read_back(root):
    uri = storage.join(root, "a", "b.parquet")
    table = pa.table({"x": [1, 2, 3]})
    assert not storage.exists(uri)
    storage.publish_table(table, uri)
    assert storage.exists(uri)
    assert storage.read_table(uri).equals(table)
    storage.publish_json({"n": 1}, storage.join(root, "c.json"))
    assert storage.read_json(storage.join(root, "c.json")) == {"n": 1}


def test_names_are_sorted_and_an_absent_folder_is_empty(root):
    assert storage.names(storage.join(root, "nowhere")) == []
    for name in ("b.parquet", "a.parquet", "c.json"):
        storage.publish_bytes(b"", storage.join(root, "t", name))
    assert storage.names(storage.join(root, "t"), ".parquet") == ["a.parquet", "b.parquet"]


def test_an_absent_file_says_which(root):
    with pytest.raises(NotPreparedError, match=r"gone\.parquet is not there"):
        storage.read_table(storage.join(root, "gone.parquet"))
    with pytest.raises(NotPreparedError, match=r"gone\.json"):
        storage.read_json(storage.join(root, "gone.json"))
    storage.remove(storage.join(root, "gone.json"))


def test_a_twin_replaces_the_file_and_leaves_no_second_name(root):
    uri = storage.join(root, "t", "unit.parquet")
    for value in (1, 2):
        storage.publish_table(pa.table({"x": [value]}), uri)
    assert storage.names(storage.join(root, "t")) == ["unit.parquet"]
    assert storage.read_table(uri)["x"].to_pylist() == [2]


def test_a_write_that_fails_half_way_leaves_neither_file_nor_rest(tmp_path, monkeypatch):
    def full(source: str, target: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        storage.publish_bytes(b"rows", str(tmp_path / "t" / "unit.parquet"))
    assert list((tmp_path / "t").iterdir()) == []


def test_a_local_root_becomes_absolute_and_a_uri_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert storage.absolute("data") == str(tmp_path / "data")
    assert storage.absolute("s3://bucket/data") == "s3://bucket/data"


def test_a_published_name_is_synced_with_its_folder(tmp_path, monkeypatch):
    synced = []
    plain = os.fsync

    def noted(number):
        synced.append(os.path.isdir(f"/proc/self/fd/{number}"))
        plain(number)

    monkeypatch.setattr(os, "fsync", noted)
    storage.publish_bytes(b"rows", str(tmp_path / "t" / "unit.parquet"))
    storage.publish_file(str(tmp_path / "t" / "unit.parquet"), str(tmp_path / "u" / "copy.parquet"))
    assert synced == [False, True, False, True]


def test_a_web_server_that_refuses_is_not_one_that_has_nothing(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(StorageError, match="the storage does not answer"):
        storage.exists(f"http://127.0.0.1:{port}/dataset.json")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    (tmp_path / "there").touch()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"http://127.0.0.1:{server.server_port}"
        assert storage.exists(f"{place}/there")
        assert not storage.exists(f"{place}/gone")
        server.shutdown()
