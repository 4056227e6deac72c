"""After `prepare` ran again, `encode` does what was read differently, whole, and nothing else."""

import csv
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from cluster.errors import NotPreparedError, TooManyFailuresError
from cluster.resources import WorkersConfig
from cluster.session import SessionConfig, ray_session
from encoders import ENCODERS, TRANSCRIBERS
from jobs import encode
from jobs.__main__ import run
from jobs.catalog.features import feature_folders, read_features, read_transcripts
from jobs.catalog.features import resolve_features as resolved
from jobs.catalog.layout import features_uri

TOYS = str(Path(__file__).parent / "toys")
pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def session():
    """The toys, importable here and on workers, and one Ray for all tests of this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOYS)
        patch.setenv("PYTHONPATH", TOYS)
        for name in ("toy_audio", "toy_text"):
            patch.setitem(ENCODERS, name, name)
        patch.setitem(TRANSCRIBERS, "toy_ear", "toy_ear")
        with ray_session(SessionConfig(num_cpus=2)):
            yield
        for name in [name for name in sys.modules if name.startswith("toy_")]:
            del sys.modules[name]


class Corpus:
    """Six clips with sound and text, two a unit, driven by the command line."""

    def __init__(self, folder):
        self.folder, self.root = folder, str(folder / "root")
        (folder / "clips").mkdir()
        self.rows = [
            {"name": f"c{i}", "text": f"clip number {i}", "split": "train"} for i in range(6)
        ]
        for i in range(6):
            self.sound(i, 0.1 + 0.1 * i)
        self.prepare()

    def sound(self, number, loudness):
        wave = loudness * np.sin(np.arange(4000) * 0.3)
        soundfile.write(self.folder / "clips" / f"c{number}.wav", wave, 8000)

    def prepare(self):
        with (self.folder / "labels.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, self.rows[0])
            writer.writeheader()
            writer.writerows(self.rows)
        source = ["--source", str(self.folder / "clips"), "--root", self.root]
        labels = ["--labels", str(self.folder / "labels.csv"), "--unit-clips", "2"]
        assert run(["prepare", "folder", *source, *labels]) == 0

    def encode(self, *encoders, **changes):
        workers = WorkersConfig(actors=1)
        encode.main(
            encode.Config(
                root=self.root, encoders=encoders, tracking=False, workers=workers, **changes
            )
        )

    def values(self, name):
        rows = read_features(self.root, resolved(self.root, name)).to_pylist()
        return {row["clip_id"]: row["values"] for row in rows}

    def files(self, name):
        folder = Path(features_uri(self.root, resolved(self.root, name)))
        return {file.name: file.stat().st_mtime_ns for file in folder.glob("*.parquet")}


@pytest.fixture
def corpus(session, tmp_path):
    return Corpus(tmp_path)


def test_a_typo_in_a_text_encodes_the_text_of_its_unit_again_and_no_sound(corpus, capsys):
    corpus.encode("toy_text", "toy_audio")
    sounds, texts = corpus.files("toy_audio"), corpus.values("toy_text")
    corpus.rows[2]["text"] = "clip number two"
    corpus.prepare()
    capsys.readouterr()
    with pytest.raises(NotPreparedError, match="2 of 6 clips have no row"):
        corpus.values("toy_text")
    corpus.encode("toy_text", "toy_audio")
    assert "2 of 6 clips to encode in 1 units; 4 are done" in capsys.readouterr().out
    assert corpus.files("toy_audio") == sounds
    after = corpus.values("toy_text")
    assert len([clip for clip in texts if after[clip] != texts[clip]]) == 1


def test_a_replaced_sound_is_encoded_again_and_no_text(corpus, capsys):
    corpus.encode("toy_text", "toy_audio")
    texts, sounds = corpus.files("toy_text"), corpus.values("toy_audio")
    corpus.sound(5, 0.9)
    corpus.prepare()
    capsys.readouterr()
    corpus.encode("toy_text", "toy_audio")
    assert "2 of 6 clips to encode in 1 units; 4 are done" in capsys.readouterr().out
    assert corpus.files("toy_text") == texts
    after = corpus.values("toy_audio")
    assert len([clip for clip in sounds if after[clip] != sounds[clip]]) == 1


def test_nothing_to_do_is_said_on_a_read_only_root_by_another_command_too(corpus, sealed, capsys):
    corpus.encode("toy_text", "toy_audio")
    made = Path(features_uri(corpus.root, resolved(corpus.root, "toy_text")), "config.json")
    content = made.read_bytes()
    sealed(corpus.root)
    capsys.readouterr()
    corpus.encode("toy_text", max_failed_share=0.5)
    assert "nothing to do: all 6 clips" in capsys.readouterr().out
    assert made.read_bytes() == content


def test_exchanged_splits_encode_the_views_concerned_again(corpus, capsys):
    corpus.rows[0]["split"] = "test"
    corpus.prepare()
    corpus.encode("toy_audio", views=1)
    plain = corpus.files("toy_audio")
    corpus.rows[0]["split"], corpus.rows[4]["split"] = "train", "test"
    corpus.prepare()
    capsys.readouterr()
    corpus.encode("toy_audio", views=1)
    assert "4 of 6 clips to encode in 2 units; 2 are done" in capsys.readouterr().out
    assert corpus.files("toy_audio") == plain
    folders = feature_folders(corpus.root)
    (view,) = [name for name, facts in folders.items() if "view" in facts]
    states = read_features(corpus.root, view)["status"].to_pylist()
    assert sorted(states) == ["missing", *["ok"] * 5]
    files = Path(features_uri(corpus.root, view)).glob("*.parquet")
    assert sum(pq.read_metadata(file).num_rows for file in files) == 6


def test_texts_that_are_added_are_not_heard_and_those_heard_stay(corpus, capsys):
    for row in corpus.rows[:3]:
        row["text"] = ""
    corpus.prepare()
    corpus.encode("toy_text", transcriber="toy_ear")
    corpus.rows[0]["text"] = "what was said"
    corpus.prepare()
    capsys.readouterr()
    corpus.encode("toy_text", transcriber="toy_ear")
    assert "2 of 6 clips to encode in 1 units" in capsys.readouterr().out
    texts = read_transcripts(corpus.root, "toy_ear")["text"].to_pylist()
    given = ["clip number 3", "clip number 4", "clip number 5"]
    assert sorted(texts) == [*given, "quiet", "quiet", "what was said"]


def test_a_folder_of_media_that_is_gone_is_named_and_makes_no_rows(corpus):
    clips = corpus.folder / "clips"
    clips.rename(corpus.folder / "elsewhere")
    for _ in ("gone", "an empty mount point"):
        with pytest.raises(
            NotPreparedError, match=rf"^{clips} (is not there|is empty), .*--source"
        ):
            corpus.encode("toy_text", "toy_audio")
        assert not feature_folders(corpus.root)
        clips.mkdir(exist_ok=True)
    corpus.encode("toy_text")
    clips.rmdir()
    (corpus.folder / "elsewhere").rename(clips)
    corpus.encode("toy_text", "toy_audio")
    assert set(
        read_features(corpus.root, resolved(corpus.root, "toy_audio"))["status"].to_pylist()
    ) == {"ok"}


def test_media_that_are_gone_from_a_folder_that_is_there_cost_a_row_each(corpus):
    for file in (corpus.folder / "clips").glob("*.wav"):
        file.unlink()
    (corpus.folder / "clips" / "notes.txt").write_text("moved")
    with pytest.raises(TooManyFailuresError):
        corpus.encode("toy_audio")
    errors = read_features(corpus.root, resolved(corpus.root, "toy_audio"))["error"].to_pylist()
    assert [error.split(":")[0] for error in errors] == ["missing"] * 6
