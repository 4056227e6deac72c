"""A file that names other files brings none of them in: playlists, scripts, patterns, descriptions."""

import shutil

import av
import numpy as np
import pytest
from PIL import Image

from cluster.errors import Fault, MediaError
from encoders.decoding import sources
from encoders.decoding.sources import Source, staged

NAMING = {
    "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1,\n{there}\n#EXT-X-ENDLIST\n",
    "list.ffconcat": "ffconcat version 1.0\nfile {there}\n",
    "list.txt": "ffconcat version 1.0\nfile {there}\n",
    "list.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1,\n{there}\n#EXT-X-ENDLIST\n",
    "stream.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    "list.mpd": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011">{there}</MPD>\n',
}


@pytest.fixture(scope="module")
def secret(tmp_path_factory):
    """A folder with a sound that nobody gave."""
    folder = tmp_path_factory.mktemp("named")
    with av.open(str(folder / "secret.ts"), "w") as output:
        stream = output.add_stream("mp2", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), "s16", "mono")
        frame.rate = 16000
        for _ in range(20):
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return folder


def opened(path, **part):
    with staged(Source(str(path), **part)) as local, local.container() as container:
        return [stream.type for stream in container.streams]


class TestWhatAFileNames:
    def test_the_sound_that_is_named_can_be_opened_when_it_is_given(self, secret):
        assert opened(secret / "secret.ts") == ["audio"]

    @pytest.mark.parametrize("named", ["secret.ts", "absolute"])
    @pytest.mark.parametrize("name", NAMING)
    @pytest.mark.parametrize("in_a_shard", [False, True])
    def test_is_not_opened(self, secret, name, named, in_a_shard):
        there = secret / "secret.ts" if named == "absolute" else named
        text = NAMING[name].format(there=there).encode()
        path = secret / name
        path.write_bytes(text)
        part = {"offset": 0, "size": len(text)} if in_a_shard else {}
        with pytest.raises(MediaError) as caught:
            opened(path, **part)
        assert caught.value.fault == Fault.UNREADABLE

    def test_is_not_opened_by_a_pattern_in_its_own_name(self, tmp_path):
        Image.new("RGB", (16, 16)).save(tmp_path / "face001.png")
        shutil.copy(tmp_path / "face001.png", tmp_path / "face%03d.png")
        with pytest.raises(MediaError):
            opened(tmp_path / "face%03d.png")

    def test_would_be_opened_without_the_list_of_formats(self, secret, monkeypatch):
        path = secret / "open.ffconcat"
        path.write_text(NAMING["list.ffconcat"].format(there="secret.ts"))
        everything = ",".join(av.formats_available)
        monkeypatch.setattr(sources, "CLOSED_FORMATS", everything)
        assert opened(path) == ["audio"]
