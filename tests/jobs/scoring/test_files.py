"""Scoring files: one decoded clip at a time, rows in the order of names, and work that outlives a kill."""

import gc
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import weakref
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from cluster import storage, tables
from cluster.errors import ConfigError
from cluster.resources import WorkersConfig
from cluster.session import SessionConfig
from encoders.media import Decoder
from jobs import score
from jobs._cli import parse
from jobs.catalog.manifest import read_manifest
from jobs.preparing.builder import build
from jobs.scoring import claim as claims
from jobs.scoring import in_process, judges, raw_clips, work_folder
from jobs.scoring.files import Files, in_order, names_of
from jobs.scoring.opening import open_bundle
from jobs.stream import decode, watch
from jobs.stream.job import DecodingConfig, facts_of
from jobs.stream.workbench import Workbench

TOYS = Path(__file__).parent.parent / "toys"


def config(root, **changes):
    return score.Config(
        **{"root": str(root), "bundle": "b", **changes},
        session=SessionConfig(num_cpus=2, num_gpus=0),
        workers=WorkersConfig(gpus_per_actor=0, actors=1),
    )


class TestFewFiles:
    def test_one_decoded_clip_is_in_memory_at_a_time(self, toys, tmp_path, monkeypatch):
        toys.corpus.write_corpus(tmp_path, 6)
        toys.bundle.write_bundle(tmp_path)
        files = [str(tmp_path / "media" / f"{i}.wav") for i in range(6)]
        (tmp_path / "media" / "4.wav").write_bytes(b"broken")
        seen, most = [], []
        inner = in_process.decode_clip

        def counted(*args):
            decoded = inner(*args)
            gc.collect()
            seen.append(weakref.ref(decoded.clip))
            most.append(sum(clip() is not None for clip in seen))
            return decoded

        monkeypatch.setattr(in_process, "decode_clip", counted)
        bundle = open_bundle("b", str(tmp_path))
        table = scored_here(config(tmp_path), bundle, files)
        assert max(most) == 1
        assert len(most) == table.num_rows == 6
        assert [row["status"] for row in table.to_pylist()].count("failed") == 1

    def test_decoded_together_they_would_say_the_same(self, toys, tmp_path, monkeypatch):
        toys.corpus.write_corpus(tmp_path, 6)
        toys.bundle.write_bundle(tmp_path)
        files = [str(tmp_path / "media" / f"{i}.wav") for i in range(6)]
        bundle = open_bundle("b", str(tmp_path), "toy_ear")
        options = config(tmp_path, transcriber="toy_ear")
        alone = scored_here(options, bundle, files)
        work = score.work_of(options, bundle)
        build(Files(root=str(tmp_path / "there"), files=tuple(files)))
        rows = read_manifest(str(tmp_path / "there")).to_pylist()
        with Decoder(**vars(options.decoding), threads=1) as decoder:
            decoded = decode.decode_rows(work, work.everything, rows, decoder)
        features = Workbench(work).run(decoded, work.everything).features
        together = score.Scorer(bundle, str(tmp_path)).scores(rows, features)
        assert alone.to_pylist() == together.to_pylist()

    @pytest.mark.parametrize("name", ["a.wav", "a.mp4", "broken.wav", "broken.mp4", "empty.mkv"])
    def test_a_file_is_read_as_prepare_would_have_it_read(self, tmp_path, name):
        file = tmp_path / name
        file.write_bytes(b"" if "empty" in name else b"broken")
        if name == "a.wav":
            soundfile.write(file, np.zeros(4000), 8000)
        elif name == "a.mp4":
            silent_film(file)
        build(Files(root=str(tmp_path / "root"), files=(str(file),)))
        [row] = read_manifest(str(tmp_path / "root")).to_pylist()
        with Decoder() as decoder:
            assert in_process.clip_of(str(file), file.stem, decoder) == decode.source_of(row)

    @pytest.mark.parametrize("hanging", [{"2"}, {"0", "1"}, {"0", "1", "2"}])
    def test_one_that_hangs_a_model_costs_itself(self, toys, tmp_path, monkeypatch, hanging):
        toys.corpus.write_corpus(tmp_path, 3)
        toys.bundle.write_bundle(tmp_path)
        files = [str(tmp_path / "media" / f"{i}.wav") for i in range(3)]
        lengths = {f"{i}.wav": 0.3 + 0.1 * i for i in range(3)}
        for name, seconds in lengths.items():
            rate = 8000
            soundfile.write(tmp_path / "media" / name, np.zeros(round(rate * seconds)), rate)
        toy = importlib.import_module("toy_encoders").ToyAudio
        stuck = {lengths[f"{name}.wav"] for name in hanging}
        inner = toy._one

        def hang(self, clip):
            while any(abs(clip.duration_s - seconds) < 0.01 for seconds in stuck):
                time.sleep(0.05)
            return inner(self, clip)

        monkeypatch.setattr(toy, "_one", hang)
        monkeypatch.setattr(watch, "LOOK_S", 0.05)
        options = config(tmp_path, stall_limit_s=0.2)
        table = scored_here(options, open_bundle("b", str(tmp_path)), files)
        rows = {Path(row["name"]).stem: row for row in table.to_pylist()}
        assert {name for name, row in rows.items() if row["status"] != "ok"} == hanging
        assert all("longer than" in rows[name]["error"] for name in hanging)
        stuck.clear()


PATHS = st.lists(st.sampled_from(["a", "b", "a.mov"]), max_size=2)
FILES = st.builds(
    lambda folders, stem, ending: "/".join(["", "d", *folders, stem + ending]),
    PATHS, st.sampled_from(["a", "b", "a.mov", "c"]), st.sampled_from([".mp4", ".mov"]),
)  # fmt: skip


class TestNamesOfFiles:
    """Whoever reads a name knows which file is meant."""

    @given(st.lists(FILES, unique=True, max_size=9))
    def test_each_is_the_end_of_one_file_with_or_without_its_ending(self, files):
        names = names_of(files)
        assert set(names) == set(files)
        assert len(set(names.values())) == len(files)
        assert names == names_of(files[::-1])

        def ends(name, file):
            return f"/{file}".endswith(f"/{name}")

        stems = {file: file.rpartition(".")[0] for file in files}
        for file, name in names.items():
            assert ends(name, file) or ends(name, stems[file])
            if not ends(name, file):  # without its ending nobody else may be meant
                others = [other for other in files if other != file]
                assert not any(ends(name, other) or ends(name, stems[other]) for other in others)

    def test_one_in_a_folder_is_not_called_as_two_beside_it_were_without_their_endings(self):
        names = names_of(["/d/a.mov", "/d/a.mp4", "/d/sub/a.mp4"])
        assert [*names.values()] == ["a.mov", "a.mp4", "sub/a"]


def silent_film(path):
    """Half a second of grey pictures."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(5):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 99, np.uint8), format="rgb24")
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def scored_here(options, bundle, files):
    """A few files, as the job scores them in its own process."""
    work, scorer = score.work_of(options, bundle), score.Scorer(bundle, options.root)
    encoder = in_process.OneByOne(work, options.decoding, options.stall_limit_s)
    return in_process.score_here(files, encoder, scorer)


def scores_of(names):
    rows = [
        {
            "clip_id": number, "name": name, "task": "mood", "bundle": "b", "label": ["calm"],
            "confidence": 1.0, "probabilities": [("calm", 1.0)], "value": None,
            "modalities": ["audio"], "status": "ok", "error": None,
        }
        for number, name in enumerate(names)
    ]  # fmt: skip
    return tables.SCORES.conform(pa.Table.from_pylist(rows, tables.SCORES.schema))


class TestTheOrderOfRows:
    def test_is_that_of_names_as_people_count(self):
        names = ["b/1", "a 2/1", "a/10", "a/2", "a/B3", "a/b20", "a/1", "A/007", "a/3"]
        found = in_order(scores_of(names))["name"].to_pylist()
        assert found == ["a/1", "a/2", "a/3", "A/007", "a/10", "a/B3", "a/b20", "a 2/1", "b/1"]

    @given(
        st.lists(st.text(alphabet="aB/ 019._-", min_size=1, max_size=8), max_size=12, unique=True)
    )
    def test_does_not_depend_on_the_order_in_which_they_came(self, names):
        def key(name):
            parts = re.split(r"([0-9]+)", name.lower().replace("/", "\x01"))
            return "".join(p.zfill(20) if p.isdigit() else p for p in parts), name

        table = scores_of(names)
        assert in_order(table)["name"].to_pylist() == sorted(names, key=key)
        backwards = table.take(pa.array(range(len(names))[::-1], pa.int64()))
        assert in_order(backwards)["clip_id"] == in_order(table)["clip_id"]

    def test_holds_for_what_is_printed_and_written(self, toys, tmp_path, capsys):
        toys.corpus.write_corpus(tmp_path, 12)
        toys.bundle.write_bundle(tmp_path)
        out = tmp_path / "s.jsonl"
        score.main(config(tmp_path, clips=(str(tmp_path / "media"),), out=str(out)))
        printed = re.findall(r"^. (\d+) ", capsys.readouterr().out, re.MULTILINE)
        written = re.findall(r'"name": "(\d+)"', out.read_text())
        assert printed == written == [str(i) for i in range(12)]


class TestTheFolderBesideOut:
    def test_is_refused_where_it_holds_something_else(self, tmp_path):
        root = work_folder.work_root(str(tmp_path / "s.csv"))
        (tmp_path / "s.csv.affuse").mkdir()
        (tmp_path / "s.csv.affuse" / "diary.txt").write_text("mine")
        with pytest.raises(ConfigError, match="holds something else; type: affuse"):
            work_folder.take_up(root, {"bundle": "b"}, "affuse score FILES --out OTHER")
        assert (tmp_path / "s.csv.affuse" / "diary.txt").read_text() == "mine"

    def test_of_other_settings_is_refused_and_stays(self, tmp_path):
        root = work_folder.work_root(str(tmp_path / "s.csv"))
        assert not work_folder.take_up(root, {"bundle": "b"}, "again")
        assert work_folder.take_up(root, {"bundle": "b"}, "again")
        with pytest.raises(ConfigError, match=r"bundle b, now c\); type: again"):
            work_folder.take_up(root, {"bundle": "c"}, "again")
        assert storage.exists(f"{work_folder.scores_uri(root)}/bundle.json")

    def test_is_known_as_ours_at_every_moment_of_its_removal(self, tmp_path, monkeypatch):
        root = work_folder.work_root(str(tmp_path / "s.csv"))
        work_folder.take_up(root, {"bundle": "b"}, "again")
        for number in range(5):
            storage.publish_json({}, f"{root}/manifest/h/{number}.json")
        from fsspec.implementations.local import LocalFileSystem

        removed = LocalFileSystem.rm_file
        for _ in range(7):
            calls = iter([True, True])

            def once(self, path, calls=calls):
                if not next(calls, False):
                    raise KeyboardInterrupt  # the process dies after a file or two
                removed(self, path)

            with monkeypatch.context() as patch:
                patch.setattr(LocalFileSystem, "rm_file", once)
                try:
                    work_folder.put_away(root)
                    break
                except KeyboardInterrupt:
                    assert work_folder.take_up(root, {"bundle": "b"}, "again")
        assert not Path(root).exists()

    def test_an_object_store_will_do(self):
        root = work_folder.work_root("memory://bucket/s.csv")
        work_folder.take_up(root, {"bundle": "b"}, "again")
        storage.publish_json({}, f"{root}/dataset.json")
        work_folder.put_away(root)
        assert not storage.names(root)


CHANGES = {
    "transcriber": {"transcriber": "toy_ear"},
    "source": {"source": "clips"},
    **{
        f"decoding.{name}": {"decoding": DecodingConfig(**{name: 7.0})}
        for name in ("time_limit_s", "time_limit_per_s", "memory_limit_gb", "max_decoded_gb")
    },
}


class TestTheClaim:
    @pytest.mark.parametrize("what", CHANGES)
    def test_whatever_shapes_rows_is_in_it(self, toys, tmp_path, what):
        toys.corpus.write_corpus(tmp_path, 4)
        toys.bundle.write_bundle(tmp_path)
        root = str(tmp_path)
        plain = config(root)
        bundle = open_bundle("b", root)
        uri = storage.join(root, "scores", "b")
        claims.claim(uri, claims.claim_of(bundle, plain.source, plain.decoding), "")
        before = storage.read_bytes(f"{uri}/bundle.json")
        with pytest.raises(ConfigError, match=what.replace(".", r"\.")) as refusal:
            score.main(config(root, **CHANGES[what]))
        assert "type: affuse score" in str(refusal.value)
        assert "--name OTHER" in str(refusal.value)
        assert storage.read_bytes(f"{uri}/bundle.json") == before

    def test_every_field_of_decoding_is_in_it_or_known_to_shape_nothing(self, toys, tmp_path):
        toys.bundle.write_bundle(tmp_path)
        made_with = claims.claim_of(open_bundle("b", str(tmp_path)), "auto", DecodingConfig())
        fields = set(DecodingConfig.__dataclass_fields__)
        assert fields - set(made_with["decoding"]) == {"recycle_after"}


def test_the_plan_counts_the_transcribers_memory(toys, tmp_path, monkeypatch):
    toys.corpus.write_corpus(tmp_path, 4, texts=[None] * 4)
    toys.bundle.write_bundle(tmp_path)
    asked = {}

    def plan(models, *_):
        asked.update(models)
        raise ConfigError("enough")

    monkeypatch.setattr(judges, "plan_stream", plan)
    with pytest.raises(ConfigError, match="enough"):
        score.main(config(tmp_path, transcriber="toy_ear"))
    assert len(asked) == 4  # two encoders, the transcriber, the nets
    assert sum(name.startswith("toy_ear") for name in asked) == 1


def command(tmp_path, out, **environment):
    """`affuse score FOLDER --out` in a process and session of its own."""
    words = [
        "score", str(tmp_path / "media"), "--bundle", str(tmp_path / "bundles" / "b"),
        "--out", str(out), "--session.num-cpus", "2", "--session.num-gpus", "0",
    ]  # fmt: skip
    return subprocess.Popen(
        [sys.executable, str(TOYS / "toy_corpus.py"), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": f"{os.getcwd()}:{TOYS}", **environment},
    )


def until(condition, process, limit_s=240.0):
    deadline = time.monotonic() + limit_s
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def without_ray(config, chosen, refs):
    """What the stream does with units, in this process."""
    job = raw_clips.stream_job(replace(config, store="/none"), chosen)
    work, publish = job.work, job.sink.open(job)
    bench = Workbench(work)
    with Decoder(**vars(config.decoding), threads=1) as decoder:
        for task in raw_clips.tasks_of(config.root, chosen, refs):
            rows = decode.rows_of(task)
            decoded = decode.decode_rows(work, task.todo, rows, decoder)
            publish(task, bench.run(decoded, task.todo), facts_of(rows))


@pytest.mark.parametrize(("net", "place"), [("concat_mlp", "{}"), ("sdt", "memory:/{}")])
def test_many_files_go_on_after_a_stop_and_leave_only_their_scores(
    toys, tmp_path, monkeypatch, capsys, net, place
):
    toys.corpus.write_corpus(tmp_path, 70, seconds=0.05)
    toys.bundle.write_bundle(tmp_path, net=net)  # sdt is of dialogues; these files are in none
    out = place.format(tmp_path / "scores.jsonl")

    def stops(config, chosen, refs):
        without_ray(config, chosen, refs[:1])
        raise KeyboardInterrupt

    words = ["score", str(tmp_path / "media"), "--bundle", str(tmp_path / "bundles/b")]
    words += ["--out", out]
    monkeypatch.setattr(score, "score_clips", stops)
    with pytest.raises(KeyboardInterrupt):
        main_of(words)
    assert not storage.exists(out)
    monkeypatch.setattr(score, "score_clips", without_ray)
    main_of(words)
    said = capsys.readouterr().out
    assert re.search(r"\b6 of 70 clips to score", said) or re.search(r"\b64 of 70 clips", said)
    rows = [json.loads(line) for line in storage.read_bytes(out).splitlines()]
    assert [row["name"] for row in rows] == [str(i) for i in range(70)]
    assert {row["status"] for row in rows} == {"ok"}
    assert not storage.names(f"{out}.affuse")


def main_of(words):
    """The job's main with a config from the command line."""
    score.main(parse("score", score, words[1:]))


@pytest.mark.ray
@pytest.mark.slow
class TestManyFiles:
    def test_a_killed_job_goes_on_where_it_was_and_twins_end_well(self, toys, tmp_path):
        toys.corpus.write_corpus(tmp_path, 200, seconds=0.1)
        toys.bundle.write_bundle(tmp_path, net="sdt")  # of dialogues; these files are in none
        out = tmp_path / "scores.jsonl"
        units = Path(f"{out}.affuse") / "scores" / "files"
        killed = command(tmp_path, out, TOY_SLEEP_S="0.15")
        until(lambda: len(list(units.glob("*.parquet"))) >= 1, killed)
        os.killpg(killed.pid, signal.SIGKILL)
        killed.communicate()
        there = {file: file.stat().st_mtime_ns for file in units.glob("*.parquet")}
        assert not out.exists()

        twins = [command(tmp_path, out, TOY_SLEEP_S="0.02") for _ in range(2)]
        said = [twin.communicate(timeout=400)[0] for twin in twins]
        assert [twin.returncode for twin in twins] == [0, 0], said
        assert there
        assert any("goes on in" in text for text in said)
        assert all("200 of 200 clips to score" not in text for text in said)
        names = [json.loads(line)["name"] for line in out.read_text().splitlines()]
        assert names == [str(i) for i in range(200)]
        assert not Path(f"{out}.affuse").exists()
