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


class Bucket:
    """An object store that counts what it is asked; its listings lack what a single look has."""

    def __init__(self, files, mark="ETag"):
        self.files, self.mark, self.asked = files, mark, []

    def ls(self, path, detail, refresh):
        self.asked.append(path)
        return [
            {"name": name, "size": 3, "LastModified": "Mon", self.mark: f'"{name}"'}
            for name in self.files
            if name.rpartition("/")[0] == path
        ]

    def info(self, path):
        return {"name": path, "size": 3, "LastModified": "Monday", self.mark: f'"{path}"', "V": 1}


class TestListing:
    @pytest.fixture
    def bucket(self, monkeypatch):
        bucket = Bucket([f"b/many/{number}.wav" for number in range(50)] + ["b/few/a.wav"])
        monkeypatch.setattr(
            stamps, "filesystem", lambda uri: (bucket, uri.removeprefix("s3://").rstrip("/"))
        )
        return bucket

    def test_a_folder_of_many_is_asked_for_once_and_says_what_a_single_look_says(self, bucket):
        uris = [f"s3://{name}" for name in bucket.files]
        found = stamps.listed_facts(uris)
        assert bucket.asked == ["b/many"]
        assert set(found) == {uri for uri in uris if "/many/" in uri}
        assert all(facts == stamps.source_facts(uri) for uri, facts in found.items())

    def test_what_is_not_in_the_listing_is_left_to_a_single_look(self, bucket):
        uris = [f"s3://b/many/{number}.wav" for number in range(40, 60)]
        assert set(stamps.listed_facts(uris)) == set(uris[:10])

    @pytest.mark.parametrize("mark", ["mtime", "updated", "created"])
    def test_marks_that_a_listing_may_give_otherwise_are_not_trusted(self, bucket, mark):
        bucket.mark = mark
        assert stamps.listed_facts([f"s3://{name}" for name in bucket.files]) == {}

    def test_disks_are_not_listed(self, tmp_path):
        assert stamps.listed_facts([f"{tmp_path}/{number}.wav" for number in range(50)]) == {}
