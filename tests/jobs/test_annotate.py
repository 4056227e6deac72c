"""The verdict stands in the picture, the film around it stays as it was."""

from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pytest

from cluster import storage
from cluster.errors import ConfigError, NotPreparedError, SchemaError
from cluster.tables import SCORES
from jobs import annotate
from jobs.annotate import Config
from jobs.captioning import panel
from jobs.captioning.captions import captions_of, piece_of
from jobs.captioning.panel import Painter
from jobs.scoring.files import file_bytes

WIDTH, HEIGHT, RATE = 320, 240, 10


def film(path, *, seconds=2, sound=True, grey=200, late_s=0.0):
    """A plain grey film with a tone."""
    with av.open(str(path), "w") as output:
        picture = output.add_stream("libx264", rate=RATE)
        picture.width, picture.height, picture.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        voice = output.add_stream("aac", rate=16000) if sound else None
        for _ in range(seconds * RATE):
            frame = av.VideoFrame.from_ndarray(
                np.full((HEIGHT, WIDTH, 3), grey, np.uint8), format="rgb24"
            )
            output.mux(picture.encode(frame))
        output.mux(picture.encode(None))
        if voice is not None:
            tone = np.sin(np.arange(seconds * 16000) / 20).astype(np.float32)[None]
            block = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            block.sample_rate = 16000
            block.pts = int(late_s * 16000)
            output.mux(voice.encode(block))
            output.mux(voice.encode(None))
    return str(path)


def row(name="clip", task="mood", **changes):
    return {
        "clip_id": 1,
        "name": name,
        "task": task,
        "bundle": "b",
        "label": ["glad"],
        "confidence": 0.75,
        "probabilities": [("calm", 0.25), ("glad", 0.75)],
        "value": None,
        "modalities": ["video"],
        "status": "ok",
        "error": None,
        **changes,
    }


def scores(path, rows):
    storage.publish_table(
        SCORES.conform(pa.Table.from_pylist(rows, schema=SCORES.schema)), str(path)
    )
    return str(path)


def frames_of(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


class TestFilm:
    @pytest.fixture
    def shown(self, tmp_path):
        annotate.main(
            Config(
                clip=film(tmp_path / "clip.mp4"),
                scores=scores(tmp_path / "scores" / "part-0.parquet", [row()]).rsplit("/", 1)[0],
            )
        )
        return tmp_path / "clip.annotated.mp4"

    def test_it_has_the_frames_and_the_length_of_the_clip(self, shown):
        with av.open(str(shown)) as container:
            stream = container.streams.video[0]
            assert (stream.width, stream.height) == (WIDTH, HEIGHT)
            assert float(stream.duration * stream.time_base) == pytest.approx(2, abs=0.01)
        assert len(frames_of(shown)) == 2 * RATE

    def test_it_keeps_its_sound(self, shown):
        with av.open(str(shown)) as container:
            blocks = [block.to_ndarray() for block in container.decode(audio=0)]
        sound = np.concatenate([block[0] for block in blocks])
        assert len(sound) == pytest.approx(32000, rel=0.1)
        assert np.abs(sound).max() > 0.5

    def test_sound_that_starts_late_stays_late(self, tmp_path):
        clip = film(tmp_path / "clip.mp4", late_s=0.5)
        annotate.main(Config(clip=clip, scores=scores(tmp_path / "s.parquet", [row()])))
        starts = []
        for file in (clip, tmp_path / "clip.annotated.mp4"):
            with av.open(str(file)) as container:
                starts.append(next(container.decode(audio=0)).time)
        assert starts[1] == pytest.approx(starts[0], abs=0.1)
        assert starts[1] > 0.3

    def test_only_the_lower_part_is_drawn_over(self, shown):
        frame = frames_of(shown)[5].astype(int)
        assert np.abs(frame[: HEIGHT // 3] - 200).max() < 12
        assert frame[-4:].mean() < 150

    def test_the_likelier_class_has_the_longer_bar(self, shown):
        picture = frames_of(shown)[5].astype(int)
        colours = [
            np.array([int(text[i : i + 2], 16) for i in (1, 3, 5)]) for text in panel.PALETTE
        ]
        areas = [(np.abs(picture - colour).sum(-1) < 60).sum() for colour in colours[:2]]
        assert areas[1] > 1.5 * areas[0] > 0

    def test_a_clip_without_sound_is_fine(self, tmp_path):
        table = scores(tmp_path / "s.parquet", [row()])
        clip = film(tmp_path / "clip.mp4", sound=False)
        annotate.main(Config(clip=clip, scores=table, out=str(tmp_path / "o.mp4")))
        assert len(frames_of(tmp_path / "o.mp4")) == 2 * RATE

    def test_pieces_take_turns(self, tmp_path, capsys):
        rows = [
            row("clip@1.0", label=["calm"], probabilities=[("calm", 0.9), ("glad", 0.1)]),
            row("clip@0.0", probabilities=[("calm", 0.0), ("glad", 1.0)]),
        ]
        clip = film(tmp_path / "clip.mp4", sound=False)
        annotate.main(Config(clip=clip, scores=scores(tmp_path / "s.parquet", rows)))
        said = capsys.readouterr().out
        assert "from 0 s: mood: glad" in said
        assert "from 1 s: mood: calm" in said
        frames = frames_of(tmp_path / "clip.annotated.mp4")
        first, last = frames[2].astype(int), frames[-2].astype(int)
        assert np.abs(first - last)[HEIGHT // 2 :].max() > 60
        assert np.abs(first - last)[: HEIGHT // 3].max() < 12

    def test_odd_and_large_pictures_are_fitted(self):
        painter = Painter(3841, 2161, captions_of([row()], 5), None)
        assert max(painter.width, painter.height) <= panel.MAX_SIDE
        assert painter.width % 2 == painter.height % 2 == 0
        image = np.zeros((2161, 3841, 3), np.uint8)
        assert painter.draw(image, 0.0).shape == (painter.height, painter.width, 3)


class TestWords:
    @pytest.mark.parametrize(
        ("changes", "title"),
        [
            ({}, "mood: glad  75%"),
            ({"value": -1.234, "label": None, "probabilities": None}, "mood: -1.23"),
            ({"label": ["glad", "proud"], "confidence": None}, "mood: glad, proud"),
            (
                {"status": "failed", "error": "truncated: no moov", "label": None},
                "mood: not scored (truncated: no moov)",
            ),
        ],
    )
    def test_each_kind_of_score_reads_as_it_should(self, changes, title):
        assert captions_of([row(**changes)], 5)[0].title == title

    def test_only_the_likeliest_classes_are_shown_in_lasting_colours(self):
        many = [(f"c{index}", 0.1 * index) for index in range(4)]
        verdict = captions_of([row(probabilities=many)], 2)[0]
        assert [name for name, _ in verdict.bars] == ["c3", "c2"]
        assert verdict.order == {"c0": 0, "c1": 1, "c2": 2, "c3": 3}

    def test_a_pieces_name_tells_its_second(self):
        assert piece_of("a@12.5") == ("a", 12.5)
        assert piece_of("a@b") == ("a@b", 0.0)
        assert piece_of("a") == ("a", 0.0)


class TestRefusals:
    @pytest.fixture
    def clip(self, tmp_path):
        return film(tmp_path / "clip.mp4", seconds=1, sound=False)

    def test_a_clip_without_scores_names_the_nearest(self, clip, tmp_path):
        table = scores(tmp_path / "s.parquet", [row("clips")])
        with pytest.raises(ConfigError, match="no clip 'clip'; did you mean 'clips'"):
            annotate.main(Config(clip=clip, scores=table))

    def test_several_tasks_need_one_named(self, clip, tmp_path):
        table = scores(tmp_path / "s.parquet", [row(), row(task="age")])
        with pytest.raises(ConfigError, match=r"type: --task NAME; scored are: age, mood"):
            annotate.main(Config(clip=clip, scores=table))
        annotate.main(Config(clip=clip, scores=table, task="age"))

    @pytest.mark.parametrize("suffix", ["csv", "jsonl"])
    def test_scores_in_text_show_what_those_in_parquet_show(self, clip, tmp_path, suffix):
        rows = [row() | {"start_s": 0.0, "end_s": 0.5}, row() | {"start_s": 0.5, "end_s": 1.0}]
        table = scores(tmp_path / "s.parquet", rows)
        said = Path(tmp_path, f"s.{suffix}")
        said.write_bytes(file_bytes(storage.read_table(table), said.name))
        made = []
        for name in (table, str(said)):
            annotate.main(Config(clip=clip, scores=name, out=str(tmp_path / "o.mp4")))
            made.append(Path(tmp_path, "o.json").read_bytes())
        assert made[0] == made[1]

    def test_a_file_of_another_kind_is_told_what_was_expected(self, clip, tmp_path):
        other = tmp_path / "s.xlsx"
        other.write_bytes(b"PK")
        with pytest.raises(NotPreparedError, match=r"came a file in .xlsx, expected .*--out"):
            annotate.main(Config(clip=clip, scores=str(other)))

    def test_no_scores_or_another_table(self, clip, tmp_path):
        with pytest.raises(NotPreparedError, match="holds no scores; type: affuse score"):
            annotate.main(Config(clip=clip, scores=str(tmp_path / "none")))
        storage.publish_table(pa.table({"a": [1]}), str(tmp_path / "x.parquet"))
        with pytest.raises(SchemaError, match="expected SCORES/4"):
            annotate.main(Config(clip=clip, scores=str(tmp_path / "x.parquet")))

    def test_a_sound_file_and_a_broken_one(self, tmp_path):
        table = scores(tmp_path / "s.parquet", [row()])
        (tmp_path / "clip.mp4").write_bytes(b"no film")
        with pytest.raises(ConfigError, match="not a film that can be opened"):
            annotate.main(Config(clip=str(tmp_path / "clip.mp4"), scores=table))
        with av.open(str(tmp_path / "clip.wav"), "w") as output:
            voice = output.add_stream("pcm_s16le", rate=16000)
            block = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.int16), "s16", "mono")
            block.sample_rate = 16000
            output.mux(voice.encode(block))
        with pytest.raises(ConfigError, match="has no picture"):
            annotate.main(Config(clip=str(tmp_path / "clip.wav"), scores=table))
        assert not (tmp_path / "clip.annotated.mp4").exists()

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"classes": 0}, "1 or more"),
            ({"out": "x.avi"}, "ends in .mp4"),
        ],
    )
    def test_a_bad_field(self, changes, said):
        with pytest.raises(ConfigError, match=said):
            Config(clip="c.mp4", scores="s", **changes)

    def test_a_font_that_is_none(self, clip, tmp_path):
        table = scores(tmp_path / "s.parquet", [row()])
        with pytest.raises(ConfigError, match="expected a TrueType file"):
            annotate.main(Config(clip=clip, scores=table, font=table))
