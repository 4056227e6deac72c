"""Published tables are made again from small copies of the official layouts."""

import importlib
import json
import re
from dataclasses import replace

import av
import pyarrow as pa
import pytest

from cluster import storage
from cluster.errors import ConfigError, LabelTableError, NotPreparedError
from fusion.metrics import METRICS
from jobs import reproduce
from jobs.__main__ import run
from jobs.catalog import layout
from jobs.catalog.manifest import read_manifest
from jobs.datasets import DATASETS
from jobs.datasets.meld import GLUED
from jobs.preparing.adapter import read_rows
from jobs.reproducing import PRESETS, captioned, preset, running, unpaired
from jobs.reproducing.preset import Fused, TrainedNet
from tests.jobs.reproducing import corpora

VOTES = {
    (1, 1, 1, 1): 482, (1, 1, 0, 1): 139, (1, 0, 1, 1): 47, (1, 1, 1, 0): 15, (1, 0, 0, 1): 18,
    (1, 1, 0, 0): 1, (1, 0, 1, 0): 1, (0, 1, 1, 1): 3, (0, 1, 0, 1): 5, (0, 0, 1, 1): 2,
    (0, 1, 1, 0): 124, (0, 0, 0, 1): 8, (0, 1, 0, 0): 132, (0, 0, 1, 0): 25, (0, 0, 0, 0): 180,
}  # fmt: skip
"""(label, text, audio, image) -> cuts: the only counts that agree with the published tables of confusion."""

SMALL = {"tracking": False, "resamples": 100, "workers": 0}


def table_of(config):
    reproduce.main(config)
    return json.loads(
        storage.read_bytes(layout.reproduce_uri(config.root, f"{config.preset}.json"))
    )["models"]


def config_of(name, data, root, **more):
    return reproduce.Config(preset=name, data=str(data), root=str(root), **{**SMALL, **more})


@pytest.mark.parametrize("name", PRESETS)
class TestPresets:
    def test_its_dataset_metrics_and_sentences_are_there(self, name):
        found = preset(name)
        assert found.dataset in DATASETS
        assert set(found.metrics) <= set(METRICS)
        assert found.why
        assert all(sentence.endswith(".") for sentence in [*found.why, *found.columns.values()])
        assert set(found.columns) == {"reproduced", "clean"}


def test_the_list_shows_every_preset_with_its_data_and_licence(capsys):
    with pytest.raises(SystemExit) as left:
        reproduce.configure(["--list"])
    assert left.value.code == 0
    said = capsys.readouterr().out
    for name in PRESETS:
        about = importlib.import_module(f"jobs.datasets.{preset(name).dataset}").ABOUT
        assert f"\n{name}\n" in said
        assert preset(name).data in said
        assert about.licence in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mmsa_mosy", "--data", "d", "--root", "r"], "did you mean 'mmsa_mosi'"),
        (["mmsa_mosi", "--data", "d", "--root", "r", "--epochs", "0"], "expected 1 or more"),
    ],
    ids=["preset", "epochs"],
)
def test_a_wrong_word_is_refused_with_what_to_type(words, said, capsys):
    assert run(["reproduce", *words]) == 2
    assert said in capsys.readouterr().err


def test_an_unknown_model_is_refused_before_anything_is_trained(tmp_path):
    data = corpora.mmsa(tmp_path / "MOSI")
    with pytest.raises(ConfigError, match="did you mean 'TFN'"):
        reproduce.main(config_of("mmsa_mosi", data, tmp_path / "root", models=("TFM",)))
    assert layout.runs_there(str(tmp_path / "root")) == []


def test_a_folder_without_the_pickles_is_refused_by_their_names(tmp_path):
    with pytest.raises(NotPreparedError, match=r"aligned_50\.pkl.*--how"):
        reproduce.main(config_of("mmsa_mosi", tmp_path, tmp_path / "root"))


def test_the_published_votes_come_out_of_the_published_answers(tmp_path):
    data = corpora.votes(tmp_path / "cuts", VOTES)
    models = ("image+text",)
    table = table_of(
        config_of(
            "video_sentiment", data, tmp_path / "root", models=models, protocols=("reproduced",)
        )
    )
    for name in models:
        figures = table[name]["reproduced"]["figures"]
        for metric, published in table[name]["published"].items():
            assert figures[metric]["value"] == pytest.approx(published, abs=0.0051), (name, metric)
        assert table[name]["reproduced"]["rows"] == 1182


class TestMmsa:
    def test_seeds_are_judged_apart_in_one_column_and_together_in_the_other(self, tmp_path):
        data = corpora.mmsa(tmp_path / "MOSI")
        config = config_of(
            "mmsa_mosi", data, tmp_path / "root", models=("TFN",), epochs=2, seeds=(1, 2)
        )
        table = table_of(config)["TFN"]
        assert [len(table[column]["made_of"]) for column in ("reproduced", "clean")] == [2, 1]
        each = []
        for name in table["reproduced"]["made_of"]:
            facts = storage.read_json(layout.evaluation_uri(config.root, name, layout.RESULTS))
            each += [row["figures"]["mae"]["value"] for row in facts["rows"] if row["name"] == name]
        mean = sum(each) / len(each)
        assert table["reproduced"]["figures"]["mae"]["value"] == pytest.approx(mean, abs=1e-6)
        assert table["reproduced"]["judged_on"] == "test"
        before = len(storage.names(layout.looks_uri(config.root), ".json"))
        assert table_of(config)["TFN"]["clean"] == table["clean"]
        assert len(storage.names(layout.looks_uri(config.root), ".json")) == before == 3
        page = storage.read_bytes(layout.reproduce_uri(config.root, "mmsa_mosi.md")).decode()
        assert "Not the preset's own settings: epochs 2, seeds (1, 2)" in page
        assert "| TFN | `acc2_nonzero` | 0.791 |" in page
        assert "here are aligned ones" in page

    @pytest.mark.parametrize("name", ["mmsa_mosi", "mmsa_mosei", "mmsa_sims"])
    def test_every_setting_is_one_that_the_job_takes(self, name, tmp_path):
        data = corpora.mmsa(tmp_path / "X", kinds=("aligned_50", "unaligned_50"))
        found = preset(name)
        models = found.models(config_of(name, data, tmp_path / "root"))
        assert len(models) == (8 if name == "mmsa_sims" else 9)
        for model in models:
            assert set(model.published) == set(found.metrics)
            assert all(-1 <= figure <= 1 for figure in model.published.values())
            assert model.reproduced.config.seeds == (1111, 1112, 1113, 1114, 1115)
            assert "align" not in model.note or "clip" in model.note

    def test_where_mosei_differs_the_settings_are_its_own(self, tmp_path):
        data = corpora.mmsa(tmp_path / "X")
        config = config_of("mmsa_mosei", data, tmp_path / "root")
        nets = {
            model.name: model.reproduced.config for model in preset("mmsa_mosei").models(config)
        }
        assert (nets["LMF"].net_options["rank"], nets["LMF"].batch_size) == (4, 32)
        assert nets["MulT"].net_options == {
            "hidden": 30, "heads": 6, "layers": 4, "kernel": 5, "dropout": 0.3,
        }  # fmt: skip
        assert nets["TFN"].lr == 5e-3


def test_data_that_have_changed_are_read_again(tmp_path, capsys):
    """A folder by what lies below it, a file by itself."""
    data = corpora.mmsa(tmp_path / "MOSI")
    for given in (data, data / "Processed" / "aligned_50.pkl"):
        config = config_of("mmsa_mosi", given, data / f"root of {given.name}")
        running.prepare(config, preset("mmsa_mosi"))
        capsys.readouterr()
        running.prepare(config, preset("mmsa_mosi"))
        assert "== affuse" not in capsys.readouterr().out
        corpora.mmsa(tmp_path / "MOSI", clips=15)
        running.prepare(config, preset("mmsa_mosi"))
        assert "== affuse prepare mmsa" in capsys.readouterr().out
        assert read_manifest(config.root, ["clip_id"]).num_rows == 45
        corpora.mmsa(tmp_path / "MOSI")


class TestInfluencers:
    def test_there_are_fourteen_and_each_is_the_preset_of_its_net(self, tmp_path):
        data = corpora.influencers(tmp_path / "empathy_test_data.pkl", clips=3)
        config = config_of("influencer_empathy", data, tmp_path / "root", epochs=2)
        models = preset("influencer_empathy").models(config)
        assert [model.name for model in models] == [f"A{k}" for k in range(1, 15)]
        frozen = {m.name for m in models if m.reproduced.config.net_options.get("frozen_vertices")}
        assert frozen == {"A12", "A13", "A14"}
        assert all(m.reproduced.config.net_options["preset"] == m.name for m in models)
        assert {m.reproduced.config.epochs for m in models} == {2}

    def test_a_file_of_test_rows_alone_is_cut_anew(self, tmp_path):
        data = corpora.influencers(tmp_path / "empathy_test_data.pkl", parts=("test",), clips=40)
        config = config_of(
            "influencer_empathy", data, tmp_path / "root", models=("A2",), epochs=1, seeds=(3,)
        )
        table = table_of(config)["A2"]
        assert table["reproduced"]["rows"] == 8
        assert table["reproduced"]["judged_on"] == "test"
        # Another number of epochs is another run; the data are not read again.
        again = table_of(replace(config, epochs=2))["A2"]
        assert again["clean"]["made_of"] != table["clean"]["made_of"]


class TestEncodedPresets:
    @pytest.mark.parametrize("name", ["m2fnet_meld", "m2fnet_meld_glued"])
    def test_meld_without_films_is_a_table_of_text_alone(self, name, tmp_path):
        data = corpora.meld(tmp_path / "MELD.Raw")
        config = config_of(name, data, tmp_path / "root")
        prepared, encoding = preset(name).steps(config)
        assert encoding.config.encoders == ("roberta_base",)
        assert prepared.config.glued == (name == "m2fnet_meld_glued")
        (only,) = preset(name).models(config)
        assert only.name == "text"
        assert (only.reproduced.config.causal, only.clean.config.causal) == (False, True)
        corpora.tone(tmp_path / "MELD.Raw" / "train_splits" / "dia0_utt0.wav", 200)
        assert len(preset(name).models(config)) == 7

    def test_named_encoders_take_the_place_of_those_of_their_modality(self, tmp_path):
        data = corpora.iemocap(tmp_path / "IEMOCAP", sessions=2)
        given = config_of("vggish_bert", data, tmp_path / "r", encoders=("minilm", "logmel_stats"))
        found = preset("vggish_bert")
        assert found.steps(given)[1].config.encoders == ("minilm", "logmel_stats")
        lines = {model.name: model for model in found.models(given)}
        assert set(lines) == {"audio", "text", "audio+text", "late fusion"}
        assert lines["audio+text"].clean.config.inputs == ("logmel_stats", "minilm")
        one = replace(given, encoders=("minilm",))
        assert [model.name for model in found.models(one)] == ["text"]

    def test_conversations_without_splits_are_cut(self, tmp_path):
        data = corpora.avamerg(tmp_path / "AvaMERG", conversations=1)
        config = config_of("empathetic_detection", data, tmp_path / "root")
        assert preset("empathetic_detection").steps(config)[0].config.split == ""
        for part in ("train", "valid", "test"):
            (data / f"{part}.json").rename(data / f"all_{part}.json")
        assert preset("empathetic_detection").steps(config)[0].config.split == "60/20/20"
        lines = [model.name for model in preset("empathetic_detection").models(config)]
        assert lines == ["audio+text", "video+text", "late fusion"]


ENCODED = {
    "empathetic_detection": (corpora.avamerg, "AvaMERG"),
    "m2fnet_meld_glued": (corpora.meld_films, "MELD.Raw"),
    "vggish_bert": (corpora.iemocap, "IEMOCAP"),
}
"""Preset -> what writes its corpus; without the hub, small encoders stand in for its own."""


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.parametrize("name", ENCODED)
def test_a_preset_with_encoders_runs_from_the_official_layout(name, tmp_path):
    make, folder = ENCODED[name]
    other = "face_expression" if name == "m2fnet_meld_glued" else "logmel_stats"
    encoders = ("minilm", other)
    data, root = make(tmp_path / folder), tmp_path / "root"
    config = config_of(name, data, root, encoders=encoders, epochs=2, seeds=(1,))
    table = table_of(config)
    assert set(table) == {model.name for model in preset(name).models(config)}
    for key, columns in table.items():
        for column in ("clean", *(("reproduced",) if key != "late fusion" else ())):
            assert 0 <= columns[column]["figures"]["accuracy"]["value"] <= 1
    page = storage.read_bytes(layout.reproduce_uri(config.root, f"{name}.md")).decode()
    assert f"encoders {encoders}" in page
    if preset(name).captions:
        check_captions(root / "reproduce" / "films")
        (root / "reproduce" / "films" / "test_dia0_utt1.mp4").unlink()
        made = (root / "reproduce" / "films" / "test_dia0_utt0.mp4").stat().st_mtime_ns
        reproduce.main(config)
        check_captions(root / "reproduce" / "films")
        assert (root / "reproduce" / "films" / "test_dia0_utt0.mp4").stat().st_mtime_ns == made


def check_captions(films):
    """Of each line of the dialogue its film, its subtitles, and a row of the table with the same label."""
    rows = read_rows(str(films / "dialogue.csv"))
    assert [row["turn"] for row in rows] == ["0", "1", "2", "3"]
    assert {row["labelled"] for row in rows} <= set(GLUED)
    for row in rows:
        film = films / f"{row['name'].replace('/', '_')}.mp4"
        with av.open(str(film)) as shown:
            assert sum(1 for _ in shown.decode(video=0)) == 6
        assert row["read"] in film.with_suffix(".srt").read_text()
        assert float(row["confidence"]) > 1 / len(GLUED) - 1e-3


def test_a_dialogue_that_lacks_a_film_is_not_captioned(tmp_path):
    there, gone = tmp_path / "a.mp4", tmp_path / "b.mp4"
    there.touch()
    lines = [
        ("test", "d0", 0, there), ("test", "d0", 1, gone), ("train", "d1", 0, there),
        ("test", "d2", 1, there), ("test", "d2", 0, there), ("test", None, 0, there), ("test", "d3", 0, None),
    ]  # fmt: skip
    keys = ("split", "dialogue", "turn", "video")
    rows = [dict(zip(keys, line, strict=True)) for line in lines]
    for row in rows:
        row["video"] = row["video"] and {"uri": str(row["video"])}
    clips = pa.Table.from_pylist(rows)
    assert [line["dialogue"] for line in captioned.dialogue_with_films(clips)] == ["d2", "d2"]
    assert [line["turn"] for line in captioned.dialogue_with_films(clips)] == [0, 1]
    assert captioned.dialogue_with_films(clips.slice(0, 3)) == []


class TestUnpairedVoters:
    """Each voter was trained on a dataset of its own; they meet over cuts that none was trained on."""

    def test_a_table_is_read_wherever_its_files_lay(self, tmp_path):
        data = corpora.unpaired(tmp_path / "data", cuts=2)
        config = config_of("video_sentiment_unpaired", data, tmp_path / "root")
        steps = preset("video_sentiment_unpaired").steps(config)
        members = ["prepare folder", "encode", "train", "evaluate"] * 3
        assert [step.command for step in steps] == ["prepare video_sentiment", "encode", *members]
        tables = {}
        for name in unpaired.TABLES:
            tables[name] = read_rows(unpaired.tables_of_clips(config, name))
            assert {row["sentiment"] for row in tables[name]} == {"negative", "positive"}
        assert [len(rows) for rows in tables.values()] == [
            15,
            15,
            15,
        ]  # a text that stands twice is one
        assert tables["image"][0]["video"] == str(data / "images" / "i 0.jpg")
        assert tables["audio"][0]["group"] == tables["audio"][1]["group"]  # of one song
        assert tables["audio"][1]["group"] != tables["audio"][2]["group"]

    @pytest.mark.parametrize(
        ("table", "said"),
        [
            (None, "no text.csv with columns text and label"),
            ("text,lable\nso,1\n", "no column 'label'; came text, lable"),
            ("text,label\nso,maybe\n", "row 1: label 'maybe', expected one of"),
        ],
        ids=["absent", "column", "label"],
    )
    def test_a_table_that_is_not_right_is_refused_by_its_name(self, table, said, tmp_path):
        data = corpora.unpaired(tmp_path / "data", items=1, cuts=1)
        (data / "text.csv").unlink()
        if table is not None:
            (data / "text.csv").write_text(table)
        config = config_of("video_sentiment_unpaired", data, tmp_path / "root")
        with pytest.raises((NotPreparedError, LabelTableError), match=re.escape(said)):
            preset("video_sentiment_unpaired").steps(config)

    @pytest.mark.slow
    @pytest.mark.weights
    def test_they_are_trained_apart_and_vote_on_cuts(self, tmp_path):
        data, root = corpora.unpaired(tmp_path / "data"), tmp_path / "root"
        encoders = ("minilm", "logmel_stats", "face_expression")
        config = config_of("video_sentiment_unpaired", data, root, encoders=encoders, epochs=30)
        table = table_of(config)
        assert set(table) == {model.name for model in preset(config.preset).models(config)}
        for name, columns in table.items():
            assert columns["reproduced"]["rows"] == 10
            assert ("clean" in columns) == ("+" in name)
        assert table["audio"]["reproduced"]["figures"]["accuracy"]["value"] >= 0.8


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["influencer_empathy", "mmsa_mosi", "mmsa_sims", "video_sentiment"]
)
def test_a_whole_preset_runs_from_the_official_layout(name, tmp_path):
    if name == "influencer_empathy":
        data = corpora.influencers(tmp_path / "empathy_test_data.pkl")
    elif name == "video_sentiment":
        data = corpora.votes(tmp_path / "cuts", VOTES)
    else:
        bound, kinds = (1.0 if name == "mmsa_sims" else 3.0), ("aligned_50", "unaligned_50")
        data = corpora.mmsa(tmp_path / "data", kinds=kinds, bound=bound)
    config = config_of(name, data, tmp_path / "root", epochs=1, seeds=(1,))
    table = table_of(config)
    models = {model.name: model for model in preset(name).models(config)}
    assert set(table) == set(models)
    for key, model in models.items():
        for column in ("reproduced", "clean"):
            assert (column in table[key]) == isinstance(model.way(column), TrainedNet | Fused)
        if name == "video_sentiment" and key != "audio":  # published of fewer cuts
            figures = table[key]["reproduced"]["figures"]
            said = {metric: figures[metric]["value"] for metric in model.published}
            assert said == pytest.approx(model.published, abs=0.0065)
