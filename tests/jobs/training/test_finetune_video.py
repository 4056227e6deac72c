"""Vision models trained inside a net, from films: encoded, trained, stopped and scored by typed commands."""

import csv
import json
import sys
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from cluster import storage
from jobs.__main__ import run

sys.path.insert(0, str(Path(__file__).parents[2] / "encoders" / "tiny"))

pytestmark = [pytest.mark.ray, pytest.mark.slow]

NAMES = ("clip_vit", "videomae")
QUIET = ("head_options.hidden=8", "head_options.dropout=0", "dropout_inside=false")
RECIPE = ("--epochs", "3", "--batch-size", "4", "--patience", "0", "--lr", "1e-2", "--no-tracking")


class Killed(BaseException):
    """Nothing of ours catches it, as nothing catches a kill."""


def typed(place, name):
    return f"{name}:weights=file://{place / name},dim=32,depth=2,publish=inputs,px=32,most=4"


def film(path: Path, number: int, seconds: float) -> None:
    """Stripes that lie down or stand up, in noise."""
    draws = np.random.default_rng(number)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        rows, columns = np.mgrid[:48, :64]
        stripes = 120 * ((rows if number % 2 else columns) // 4 % 2) + 60
        for _ in range(round(10 * seconds)):
            picture = stripes[..., None] + draws.integers(-20, 20, (48, 64, 3))
            frame = av.VideoFrame.from_ndarray(picture.astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folder of tiny weights and films, and a prepared dataset of them with their published pictures."""
    import tiny_models

    place = tmp_path_factory.mktemp("films")
    for name in NAMES:
        (place / name).mkdir()
        tiny_models.BUILDERS[name](place / name)
    rows = []
    for number in range(20):
        path = place / f"clip{number}.mp4"
        film(path, number, 5.0 if number == 0 else 0.5 + 0.1 * number)
        split = "train" if number < 10 else "valid" if number < 14 else "test"
        mood = ("standing", "lying")[number % 2]
        rows.append((path.name, path.name, f"{split}{number % 4}", split, mood))
    with (place / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("name", "video", "speaker", "split", "mood"), *rows])
    root = str(place / "root")
    assert not run(["prepare", "folder", "--labels", f"{place}/labels.csv", "--source", str(place),
                    "--tasks", "mood=classification", "--root", root])  # fmt: skip
    assert not run(["encode", "--root", root, "--encoders", *(typed(place, n) for n in NAMES)])
    return place, root


def trained(made, name, run_name, *options, workers="0"):
    place, root = made
    words = ("--net", "finetune", "--net-options", *QUIET, *options)
    return run(["train", "--root", root, "--inputs", typed(place, name), "--run", run_name,
                *words, *RECIPE, "--checkpoint-s", "0", "--workers", workers])  # fmt: skip


def weights(root, name):
    (path,) = Path(root, "runs", name).rglob("model.safetensors")
    return load_file(path)


def scores(uris):
    """Clip's name -> probabilities, of tables of scores."""
    rows = [row for uri in uris for row in storage.read_table(str(uri)).to_pylist()]
    return {row["name"]: [share for _, share in row["probabilities"]] for row in rows}


def test_pictures_are_stored_as_bytes_and_at_most_so_many_a_clip(made):
    _, root = made
    (folder,) = Path(root, "features").glob("clip_vit-*")
    table = pq.read_table(sorted(folder.rglob("*.parquet")))
    assert str(table.schema.field("values").type.value_type.value_type) == "uint8"
    rows = {row["clip_id"]: row for row in table.select(["clip_id", "valid", "status"]).to_pylist()}
    lengths = [len(row["valid"]) for row in rows.values()]
    assert max(lengths) == 4
    assert [row["status"] for row in rows.values()].count("partial") == 5  # longer than two seconds
    assert json.loads((folder / "descriptor.json").read_text())["dim"] == 3 * 32 * 32


class TestTrained:
    @pytest.mark.parametrize("name", NAMES)
    def test_only_above_the_frozen_block(self, made, name):
        assert not trained(made, name, f"{name}-half", "freeze=1")
        inside = [key for key in weights(made[1], f"{name}-half") if ".branches." in key]
        assert inside
        assert not any(".0." in key.partition("layer")[2][:4] for key in inside)
        assert not any("embeddings" in key for key in inside)

    @pytest.mark.parametrize(
        "options",
        [
            ("lora=2", "recompute=true", "layers=sum", "encoder_rate=0.3"),
            ("layers=all", "layer_decay=0.5"),
        ],
        ids=str,
    )
    def test_in_other_ways(self, made, options):
        assert not trained(made, "clip_vit", f"clip-{len(options)}", *options)

    def test_from_a_solved_head(self, made):
        place, root = made
        words = ("--net-options", "head=linear", "dropout=0", "freeze=1")
        assert not run(["train", "--root", root, "--inputs", typed(place, "clip_vit"), "--run",
                        "solved", "--net", "finetune", *words, *RECIPE, "--workers", "0"])  # fmt: skip


class TestABundle:
    def test_scores_films_and_stored_pictures_as_it_was_evaluated(self, made, tmp_path):
        place, root = made
        assert not trained(made, "clip_vit", "whole")
        for words in (
            ("ensemble", "--runs", "whole", "--bundle", "b", "--resamples", "100"),
            ("evaluate", "--bundle", "b", "--resamples", "100"),
            ("score", "--bundle", "b", "--source", "clips", "--name", "raw"),
            ("score", "--bundle", "b", "--source", "features", "--name", "stored"),
        ):
            assert not run([words[0], "--root", root, *words[1:]])
        raw, stored = (
            scores(Path(root, "scores", name).rglob("*.parquet")) for name in ("raw", "stored")
        )
        assert raw.keys() == stored.keys()
        assert len(raw) == 20
        for name, shares in raw.items():
            assert shares == pytest.approx(stored[name], abs=1e-4)
        out = tmp_path / "films.parquet"
        films = [str(place / f"clip{number}.mp4") for number in (15, 16)]
        assert not run(["score", *films, "--bundle", f"{root}/bundles/b", "--out", str(out)])
        for name, shares in scores([out]).items():
            (known,) = (value for key, value in raw.items() if Path(name).stem == Path(key).stem)
            assert shares == pytest.approx(known, abs=1e-4)


class TestOtherWeights:
    def test_are_refused_and_no_net_is_to_be_removed_for_them(self, made, capsys):
        place, root = made
        assert not trained(made, "clip_vit", "sound", "freeze=1")
        file = place / "clip_vit" / "model.safetensors"
        before = file.read_bytes()
        capsys.readouterr()
        try:
            file.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
            assert run(["verify", "--root", root])
            said = " ".join(capsys.readouterr().out.split())
        finally:
            file.write_bytes(before)
        assert "nets whose encoder is not as they were trained from" in said
        assert "put the former files back; or type affuse encode" in said
        assert "put the former files back, or encode and train again" in said
        assert "affuse models" not in said
        assert "remove the folder of the part" not in said


class TestStopped:
    def killed(self, made, name, monkeypatch, *options):
        """A run that ends right after its first checkpoint."""
        publish = storage.publish_bytes

        def publish_and_die(content, uri):
            publish(content, uri)
            if "checkpoint" in uri:
                raise Killed(uri)

        with monkeypatch.context() as patch:
            patch.setattr(storage, "publish_bytes", publish_and_die)
            with pytest.raises(Killed):
                trained(made, "clip_vit", name, *options)

    def test_and_continued_it_has_the_weights_of_an_undisturbed_one(
        self, made, monkeypatch, capsys
    ):
        assert not trained(made, "clip_vit", "undisturbed", "freeze=1")
        self.killed(made, "stopped", monkeypatch, "freeze=1")
        capsys.readouterr()
        assert not trained(made, "clip_vit", "stopped", "freeze=1")
        assert "began with" not in capsys.readouterr().out
        ours, whole = (weights(made[1], name) for name in ("stopped", "undisturbed"))
        assert all(np.array_equal(ours[key], whole[key]) for key in whole)

    def test_and_continued_by_two_workers_it_says_so(self, made, monkeypatch, capsys):
        self.killed(made, "two", monkeypatch, "freeze=1")
        assert not trained(made, "clip_vit", "two", "freeze=1", workers="2")
        assert (
            "fold 0 seed 0: began with 1 worker and goes on with 2; each draws"
            in capsys.readouterr().out
        )
        ours, whole = (weights(made[1], name) for name in ("two", "undisturbed"))
        for key, value in whole.items():
            if not key.endswith("k_proj.bias"):  # it cancels out of attention
                np.testing.assert_allclose(ours[key], value, atol=1e-4, rtol=1e-3)
