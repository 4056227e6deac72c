"""Models of the hub trained inside a net, from recordings: encoded, trained and scored by typed commands."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from jobs.__main__ import run

sys.path.insert(0, str(Path(__file__).parents[2] / "encoders" / "tiny"))

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SOUND = ("emotion2vec", "sensevoice", "w2v_bert", "wav2vec2_dimensional")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folder of tiny weights, and a prepared dataset of tones with their published inputs."""
    import tiny_models

    place = tmp_path_factory.mktemp("media")
    for name in SOUND:
        (place / name).mkdir()
        tiny_models.BUILDERS[name](place / name)
    rows = []
    for number in range(16):
        rng, mood = np.random.default_rng(number), ("low", "high")[number % 2]
        time = np.arange(8000 + 700 * number) / 16000
        tone = 0.3 * np.sin(2 * np.pi * (150 + 300 * (number % 2)) * time)
        path = place / f"clip{number}.wav"
        soundfile.write(path, tone + 0.01 * rng.standard_normal(len(time)), 16000)
        split = "train" if number < 8 else "valid" if number < 12 else "test"
        rows.append((path.name, path.name, f"{split}{number % 4}", split, mood))
    with (place / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("name", "audio", "speaker", "split", "mood"), *rows])
    root = str(place / "root")
    assert not run(["prepare", "folder", "--labels", f"{place}/labels.csv", "--source", str(place),
                    "--tasks", "mood=classification", "--root", root])  # fmt: skip
    assert not run(["encode", "--root", root, "--encoders", *(typed(place, n) for n in SOUND)])
    return place, root


def typed(place, name):
    return f"{name}:weights=file://{place / name},dim=32,depth=2,publish=inputs"


class TestTrained:
    @pytest.mark.parametrize("name", SOUND)
    def test_from_what_was_published_and_only_above_the_frozen_block(self, made, name, capsys):
        place, root = made
        words = ("--net", "finetune", "--net-options", "head_options.hidden=8", "freeze=1")
        assert not run(["train", "--root", root, "--inputs", typed(place, name), "--run", name,
                        *words, "--epochs", "1", "--workers", "0", "--no-tracking"])  # fmt: skip
        (card,) = Path(root, "runs", name).rglob("model.json")
        assert json.loads(card.read_text())["inputs"]["audio"]["options"]["publish"] == "inputs"
        assert len(list(Path(root, "runs", name).rglob("model.safetensors"))) == 1

    @pytest.mark.parametrize("name", SOUND)
    def test_and_what_the_model_says_by_itself_is_no_column_of_it(self, made, name, capsys):
        place, root = made
        (folder,) = Path(root, "features").glob(f"{name}-*")
        (part, *_) = folder.rglob("*.parquet")
        columns = set(pq.read_schema(part).names)
        assert "values" in columns
        assert not columns & {"emotion", "arousal", "dominance", "valence"}
        facts = json.loads((folder / "descriptor.json").read_text())
        assert facts["side"] == {}
        assert run(["ensemble", "--root", root, "--side", typed(place, name), "--rule", "mean"])
        assert "says nothing of 'mood'" in capsys.readouterr().err
