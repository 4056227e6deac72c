"""A URI is shown and written without its secrets, and otherwise as it was."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import storage
from cluster.redaction import redacted

SECRET = "hunter2"


class TestRedacted:
    @pytest.mark.parametrize(
        "uri",
        [
            f"sqlite:///runs.db?password={SECRET}",
            f"sqlite:runs.db?x=1&password={SECRET}",
            f"postgresql://ann:{SECRET}@db:5432/runs",
            f"postgresql+psycopg2://ann:{SECRET}/with/slash@db/runs",
            f"mysql://:{SECRET}@db/runs",
            f"http://ann:{SECRET}@host:5000",
            f"https://{SECRET}@host/x",
            f"s3://KEY:{SECRET}@bucket/x",
            f"https://host/clip.mp4?X-Amz-Signature={SECRET}&X-Amz-Expires=9",
            f"https://host/clip.mp4?v=1&access_token={SECRET}#top",
            f"az://c/x?sv=1&SIG={SECRET}",
        ],
    )
    def test_the_secret_goes_wherever_it_stands(self, uri):
        for text in (uri, f"no answer from '{uri}', tried", f"a {uri}"):
            assert SECRET not in redacted(text)
        assert SECRET not in json.dumps(redacted({"a": [{"b": (uri,)}]}))

    @pytest.mark.parametrize(
        "text",
        [
            "hf://owner/name@revision", "package://dist==1.2/path/x.bin", "abfs://data@account.dfs/x",
            "s3://bucket/a b?c", "http://host:8080/a@b", "http://127.0.0.1:5000", "C:/data/x",
            "file:///mnt/d", "/data/a:b@c", "emotion: 0.3", "https://h/x?v=1&frames=2", "a::b.mp4", "",
        ],
    )  # fmt: skip
    def test_what_is_no_secret_stays(self, text):
        assert redacted(text) == text

    @given(st.text(max_size=60))
    def test_any_text_is_taken_and_twice_is_once(self, text):
        assert redacted(redacted(text)) == redacted(text)

    def test_what_is_published_as_json_has_none(self, tmp_path):
        storage.publish_json({"root": f"s3://K:{SECRET}@b", "n": 1}, f"{tmp_path}/config.json")
        assert storage.read_json(f"{tmp_path}/config.json") == {"root": "s3://K:***@b", "n": 1}
