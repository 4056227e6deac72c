"""A replaced file is seen, on whatever store it lies."""

import fsspec
import pytest

from cluster import stamps, storage


@pytest.fixture(params=["disk", "memory"])
def root(request, tmp_path):
    if request.param == "disk":
        yield str(tmp_path / "root")
    else:
        yield f"memory://{tmp_path.name}"
        fsspec.filesystem("memory").store.clear()


def test_facts_of_a_file_change_with_its_content(tmp_path):
    file = tmp_path / "a.wav"
    file.write_bytes(b"12")
    before = stamps.source_facts(str(file))
    file.write_bytes(b"123")
    assert before["size"] == 2
    assert stamps.source_facts(str(file)) != before


@pytest.mark.parametrize(
    "marks",
    [
        {"last_modified": "Mon", "etag": "0x1"},  # Azure
        {"LastModified": "Mon", "ETag": '"1"'},  # S3
        {"updated": "Mon", "generation": "1"},  # Google
        {"ETag": '"1"'},  # HTTP
        {"created": 1.0},  # memory
    ],
)
def test_a_replaced_file_of_equal_size_is_seen_on_every_store(marks, monkeypatch):
    def facts(version):
        info = {"size": 2} | {key: f"{value}{version}" for key, value in marks.items()}
        fs = type("Store", (), {"info": lambda self, path: info})()
        monkeypatch.setattr(stamps, "filesystem", lambda uri: (fs, uri))
        return stamps.source_facts("x://b/a.wav")

    assert facts(1) == facts(1)
    assert facts(1)["size"] == 2
    assert facts(1) != facts(2)


def test_a_store_without_any_mark_is_told_by_the_ends_of_the_content(monkeypatch):
    class Store:
        content = b"one" * 100_000

        def info(self, path):
            return {"size": len(self.content)}

        def cat_file(self, path, start, end):
            return self.content[start:end]

    store = Store()
    monkeypatch.setattr(stamps, "filesystem", lambda uri: (store, uri))
    before = stamps.source_facts("x://b/a.wav")
    assert before == stamps.source_facts("x://b/a.wav")
    store.content = store.content[:-3] + b"two"
    assert stamps.source_facts("x://b/a.wav") != before


def test_a_file_that_takes_the_name_of_another_has_another_stamp(root):
    uri = storage.join(root, "t", "a.parquet")
    storage.publish_bytes(b"12", uri)
    before = stamps.of_folder(storage.join(root, "t"), ".parquet")
    assert before == {"a.parquet": stamps.stamp_of(uri)}
    storage.publish_bytes(b"34", uri)
    assert stamps.of_folder(storage.join(root, "t"))["a.parquet"] != before["a.parquet"]
    storage.remove(uri)
    assert stamps.stamp_of(uri) is None
    assert stamps.of_folder(storage.join(root, "nowhere")) == {}
