"""By the commands alone: what players play is what `prepare` and `encode` find in files of every kind."""

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from encoders import ENCODERS
from jobs.__main__ import run
from jobs.catalog.features import read_features, resolve_features
from jobs.catalog.manifest import manifest_files

sys.path.insert(0, str(Path(__file__).parents[1] / "encoders" / "matrix"))
from coded_media import Film, Sound, write_film, write_sound

TOYS = str(Path(__file__).parent / "toys")
pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1200)]

SOUNDS = {
    "plain": Sound(file="plain.wav", layout="stereo"),
    "in_film": Sound(file="in_film.mkv", layout="stereo"),
    "no_length": Sound(file="no_length.wav", layout="stereo", fault="wav no length"),
    "cut": Sound(file="cut.wav", fault="cut 0.5"),
    "loud": Sound(file="loud.wav", by="soundfile", codec="FLOAT", loud=1.6),
    "hole": Sound(file="hole.mkv", hole_s=40.0),
    "camera": Sound(file="camera.MTS", codec="ac3", rate_hz=48000, format="mpegts"),
}
FILMS = {
    "wide": Film(file="wide.mp4", aspect="2/1"),
    "cut_film": Film(file="cut_film.mkv", fault="cut 0.6"),
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Encoder -> name of a clip -> its row, of one `prepare` and one `encode`."""
    folder = tmp_path_factory.mktemp("media")
    clips, root = folder / "clips", folder / "root"
    clips.mkdir()
    for sound in SOUNDS.values():
        write_sound(sound, clips)
    for film in FILMS.values():
        write_film(film, clips)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOYS)
        patch.setenv("PYTHONPATH", TOYS)
        names = ("toy_audio", "toy_video")
        for name in names:
            patch.setitem(ENCODERS, name, name)
        assert run(["prepare", "folder", "--source", str(clips), "--root", str(root)]) == 0
        command = ["encode", "--root", str(root), "--encoders", *names, "--no-tracking"]
        flags = ["--session.num-cpus", "2", "--session.num-gpus", "0", "--max-failed-share", "1"]
        assert run([*command, *flags]) == 0
        tables = {
            name: read_features(str(root), resolve_features(str(root), name)).to_pylist()
            for name in names
        }
        for name in [name for name in sys.modules if name.startswith("toy_")]:
            del sys.modules[name]
    found = [row for file in manifest_files(str(root)) for row in pq.read_table(file).to_pylist()]
    name_of = {row["clip_id"]: Path(row["name"]).stem for row in found}
    return {
        encoder: {name_of[row["clip_id"]]: row for row in table}
        for encoder, table in tables.items()
    }


def peaks(row):
    """The second number of each tenth of a second: how loud it gets."""
    return np.asarray(row["values"])[:, 1]


def test_stereo_has_the_level_of_its_channels_in_any_container(rows):
    sounds = rows["toy_audio"]
    for name in ("in_film", "no_length"):
        assert sounds[name]["status"] == "ok"
        np.testing.assert_allclose(peaks(sounds[name]), peaks(sounds["plain"]), atol=2e-3)


def test_what_is_cut_short_or_brought_down_says_partial(rows):
    for name, word in (("cut", "cut short"), ("loud", "full scale")):
        assert rows["toy_audio"][name]["status"] == "partial"
        assert word in rows["toy_audio"][name]["error"]
    assert rows["toy_video"]["cut_film"]["status"] == "partial"
    assert peaks(rows["toy_audio"]["loud"]).max() <= 1.01


def test_a_long_hole_is_silent_and_what_follows_keeps_its_time(rows):
    loud = peaks(rows["toy_audio"]["hole"])
    assert len(loud) == pytest.approx(420, abs=2)
    assert not loud[15:405].any()
    assert loud[415] > 0.01


def test_a_cameras_file_is_found_and_read(rows):
    assert rows["toy_audio"]["camera"]["status"] == "ok"


def test_pictures_have_their_proportions(rows):
    height, width, _ = rows["toy_video"]["wide"]["values"][0]
    assert width / height == pytest.approx(128 / 48, rel=0.05)
