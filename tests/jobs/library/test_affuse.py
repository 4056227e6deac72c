"""affuse in Python: a light door, frames in and out, the same answers as the command line."""

import contextlib
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import affuse
from cluster import storage
from cluster.errors import AffuseError, ConfigError, NotPreparedError
from jobs import ensemble, score, train
from jobs.library.clip_rows import COLUMNS, clip_rows
from jobs.library.loaded_bundle import load

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def made(toys, tmp_path_factory):
    """A folder of four sounds, and a bundle beside it."""
    root = tmp_path_factory.mktemp("made")
    toys.corpus.write_corpus(root, 4)
    toys.bundle.write_bundle(root)
    return root


def probabilities(frame):
    return frame[[name for name in frame if name.startswith("p_")]].to_numpy()


class TestTheDoor:
    def test_opens_in_less_than_a_third_of_a_second_and_loads_nothing_heavy(self):
        code = (
            "import sys, time; begun = time.perf_counter(); import affuse;"
            "took = time.perf_counter() - begun;"
            "heavy = {'torch', 'ray', 'mlflow', 'pandas', 'pyarrow', 'numpy'} & set(sys.modules);"
            "print(heavy or '', took if took > 0.3 else '')"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == ""

    def test_shows_what_it_has(self):
        assert all(callable(getattr(affuse, name)) for name in affuse.__all__)


class TestWhichBundle:
    def test_the_only_one_of_the_root_is_taken(self, made, capsys):
        assert affuse.load_bundle(root=str(made)).bundle.name == "b"
        assert capsys.readouterr().out == ""

    def test_the_newest_is_taken_and_said(self, toys, tmp_path, capsys):
        toys.bundle.write_bundle(tmp_path)
        facts = storage.read_json(str(tmp_path / "bundles" / "b" / "bundle.json"))
        newer = tmp_path / "bundles" / "later"
        storage.publish_json({**facts, "name": "later"}, str(newer / "bundle.json"))
        opened = affuse.load_bundle(root=str(tmp_path))
        assert opened.bundle.name == "later"
        assert "bundle later, the newest of 2; another: bundle='b'" in capsys.readouterr().out

    def test_an_empty_root_says_what_to_type(self, tmp_path):
        with pytest.raises(NotPreparedError, match="type: affuse ensemble --root"):
            affuse.load_bundle(root=str(tmp_path))

    def test_without_a_root_it_is_the_one_that_needs_no_training(self):
        opened = affuse.load_bundle()
        assert (opened.bundle.name, opened.task_name) == ("face_expression", "expression")

    @pytest.mark.parametrize("place", ["first", "models:/mine@champion"])
    def test_without_the_root_that_it_needs_python_is_told_how_one_is_named(
        self, place, monkeypatch
    ):
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with pytest.raises(AffuseError, match="root='ROOT'"):
            affuse.load_bundle(place)

    def test_it_says_in_a_line_what_it_is(self, made):
        said = repr(affuse.load_bundle("b", root=str(made)))
        assert said == "<affuse bundle b: mood, reads toy_text, toy_audio>"


class TestScores:
    def test_are_those_of_the_command_line(self, made, tmp_path):
        media = str(made / "media")
        out = tmp_path / "out.parquet"
        score.main(score.Config(clips=(media,), bundle=f"{made}/bundles/b", out=str(out)))
        frame = affuse.score(media, bundle=f"{made}/bundles/b")
        rows = storage.read_table(str(out)).to_pylist()
        assert frame["name"].tolist() == [row["name"] for row in rows] == ["0", "1", "2", "3"]
        assert frame["label"].tolist() == [row["label"][0] for row in rows]
        expected = np.array([[p for _, p in row["probabilities"]] for row in rows])
        assert probabilities(frame) == pytest.approx(expected, abs=1e-9)

    def test_come_in_the_order_of_the_rows_whatever_is_in_them(self, made):
        files = [str(made / "media" / f"{i}.wav") for i in range(4)]
        texts = ["so it is", None, "well", "oh"]
        rows = {"clip": [files[3], files[0], None, "/nowhere.wav"], "text": texts}
        opened = load("b", root=str(made))
        frame = opened.predict(pd.DataFrame(rows))
        assert frame["name"].tolist() == ["3", "0", "row 2", "nowhere"]
        assert frame["modalities"].tolist() == ["audio+text", "audio", "text", "text"]
        assert frame["status"].tolist() == ["ok", "ok", "ok", "partial"]
        assert "there is no such file" in frame["error"][3]
        for at in range(4):
            alone = opened.predict([{name: values[at] for name, values in rows.items()}])
            assert probabilities(alone)[0] == pytest.approx(probabilities(frame)[at], abs=1e-6)

    def test_a_segment_is_read_and_not_the_file(self, made):
        opened, file = load("b", root=str(made)), str(made / "media" / "1.wav")
        _, features = opened.encode(
            {"clip": [file, file], "start_s": [None, 0.2], "end_s": [None, 0.4]}
        )
        (folder,) = [name for name in features if name.startswith("toy_audio")]
        assert [len(each) for each in features[folder]["values"].to_pylist()] == [5, 2]

    def test_columns_depend_on_the_task_and_not_on_the_clips(self, made):
        opened = load("b", root=str(made))
        some = opened.predict({"text": ["yes"]})
        none = opened.predict({"text": [None]})
        assert [*some] == [*none]
        assert (some.dtypes[probabilities_of(some)] == "float64").all()
        assert (none.dtypes[probabilities_of(none)] == "float64").all()
        assert none["status"].tolist() == ["missing"]


def probabilities_of(frame):
    return [name for name in frame if name.startswith("p_")]


class TestImportedInputs:
    @pytest.fixture(scope="class")
    def trained(self, write_root, tmp_path_factory):
        """A bundle over inputs that no encoder makes."""
        root = write_root(str(tmp_path_factory.mktemp("small") / "root"))
        for name in ("voice", "face"):
            train.main(
                train.Config(
                    root=root, run=name, inputs=(name,), net="linear", folds="speaker", refit=True,
                    tasks=("emotion",), tracking=False,
                )
            )  # fmt: skip
        runs = ("voice", "face")
        ensemble.main(ensemble.Config(root=root, runs=runs, task="emotion", resamples=100))
        return root

    def test_are_columns_of_the_frame_and_give_what_stored_features_give(self, trained):
        score.main(score.Config(root=trained, bundle="ensemble"))
        stored = score.read_scores(trained, "ensemble").sort_by("clip_id").to_pylist()
        columns = {}
        for name in ("voice", "face"):
            table = storage.read_table(f"{trained}/features/{name}-1/rows.parquet")
            cells = table.sort_by("clip_id")["values"].to_pylist()
            columns[name] = [cell or None for cell in cells]
        frame = load("ensemble", root=trained).predict(pd.DataFrame(columns))
        expected = [[p for _, p in row["probabilities"]] for row in stored]
        assert probabilities(frame) == pytest.approx(np.array(expected), abs=1e-6)
        assert frame["modalities"].tolist()[3] == "audio"

    @pytest.mark.parametrize(
        ("cell", "said"),
        [
            ([1.0, 2.0], "expected 6 features a step, came"),
            ("loud", "expected numbers"),
            ([[1.0] * 6, [1.0] * 5], "expected numbers"),
        ],
    )
    def test_of_another_shape_are_refused(self, trained, cell, said):
        with pytest.raises(ConfigError, match=rf"row 0: voice: {said}"):
            load("ensemble", root=trained).predict({"voice": [cell]})


class TestFeatures:
    def test_are_a_row_a_step_and_a_clip_without_one_says_why(self, toys, made):
        files = [str(made / "media" / "0.wav"), "/nowhere.wav"]
        frame = affuse.features(pd.DataFrame({"clip": files}), "toy_audio")
        assert frame["name"].tolist() == ["0"] * 5 + ["nowhere"]
        assert [*frame][-2:] == ["toy_audio_0", "toy_audio_1"]
        assert frame["toy_audio_1"][:5].between(0.05, 0.2).all()
        assert frame.iloc[5][["toy_audio_0", "toy_audio_1"]].isna().all()
        assert "there is no such file" in frame["error"][5]

    def test_an_unknown_encoder_is_answered_with_the_nearest(self):
        with pytest.raises(ConfigError, match="egemaps"):
            affuse.features("clip.mp4", "egemap")


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("clips", "said"),
        [
            (7, "expected a path, several paths or a frame, came int"),
            ([], "expected at least one"),
            ([1, 2], "expected paths or rows, came int"),
            ({"clp": ["a.mp4"]}, "no column is called 'clp'; did you mean 'clip'"),
            ({"start_s": [1.0]}, "expected a column of clip, text"),
            ({"clip": ["a", "b"], "text": ["c"]}, "columns are of different lengths"),
            ({"clip": [3]}, "row 0: clip: expected a path, came 3"),
            ({"text": [3.5]}, "row 0: text: expected str, came 3.5"),
            ({"text": ["a"], "start_s": ["soon"]}, "row 0: start_s: expected seconds from 0 on"),
            ({"text": ["a"], "start_s": [-1]}, "row 0: start_s: expected seconds from 0 on"),
            (
                {"text": ["a"], "start_s": [2.0], "end_s": [1.0]},
                "end_s 1: expected after start_s 2",
            ),
            ({"text": ["a"], "turn": ["first"]}, "row 0: turn: expected int, came 'first'"),
        ],
    )
    def test_is_named(self, made, clips, said):
        with pytest.raises(ConfigError, match=said):
            load("b", root=str(made)).predict(clips)

    @given(
        st.dictionaries(
            st.sampled_from([*COLUMNS, "other"]),
            st.lists(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                min_size=2,
                max_size=2,
            ),
        )
    )
    def test_no_frame_ends_in_anything_but_rows_or_a_sentence(self, columns):
        with contextlib.suppress(AffuseError):
            rows = clip_rows(columns)
            assert [row.clip_id for row in rows] == list(range(len(rows)))


class TestSeveralThreads:
    """A web server, a thread pool or MLflow calls from any thread; a process has one decoder."""

    def test_get_what_one_thread_gets(self, made):
        clips = [str(made / "media" / f"{number}.wav") for number in range(4)]
        shared, other = (affuse.load_bundle("b", root=str(made)) for _ in range(2))
        expected = [shared.predict(clip).to_dict("records") for clip in clips]
        steps = affuse.features(clips[0], "toy_audio").to_dict("records")
        said, again = {}, {}

        def visit(number):
            mine = clips[number:] + clips[:number]
            said[number] = [
                (shared if turn % 2 else other).predict(clip).to_dict("records")
                for turn, clip in enumerate(mine)
            ]
            again[number] = affuse.features(clips[0], "toy_audio").to_dict("records")

        # One after the other, too: the decoder's process ends with the thread that started it.
        for numbers in (range(4), (4 - 1,)):
            threads = [threading.Thread(target=visit, args=(number,)) for number in numbers]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(240)
            assert not any(thread.is_alive() for thread in threads)
            for number in numbers:
                assert said.pop(number) == expected[number:] + expected[:number]
                assert again.pop(number) == steps

    def test_a_call_that_fails_lets_the_next_one_in(self, made):
        bundle = affuse.load_bundle("b", root=str(made))
        with pytest.raises(ConfigError):
            bundle.predict({"clip": [3]})
        rows = []
        thread = threading.Thread(target=lambda: rows.append(bundle.predict([{"text": "well"}])))
        thread.start()
        thread.join(120)
        assert len(rows) == 1


@pytest.mark.slow
@pytest.mark.weights
def test_the_notebook_runs_to_its_end(toys, tmp_path):
    import nbclient
    import nbformat

    write_offline_bundle(toys.bundle, str(tmp_path / "demo"))
    book = nbformat.read(ROOT / "docs" / "notebook.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in book.cells)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(book, timeout=300, resources=resources).execute()
    tables = [
        o["data"].get("text/html", "")
        for c in book.cells
        for o in c.get("outputs", ())
        if "data" in o
    ]
    assert any("p_calm" in table for table in tables)


def write_offline_bundle(toy_bundle, root):
    """A bundle over pretrained encoders of words and of sound, its nets untrained."""
    sound = toy_bundle.source("egemaps")
    toy_bundle.write_bundle(root, text="minilm", words=384, sound=sound, width=88)
