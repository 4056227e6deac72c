"""An encoder trained inside a net: from typed commands to scores of raw clips."""

import contextlib
import csv
import io
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from cluster import storage
from cluster.errors import ConfigError, WeightsError
from encoders import store
from encoders.registry import describe
from jobs.__main__ import run
from jobs.evaluation.linear_baseline import OF_STATES

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.weights]

MOODS = {
    "glad": ("what a lovely day", "we won the game", "i love this song", "thank you so much"),
    "sad": ("i lost my dog", "nobody came to see me", "it hurts so much", "i miss her every day"),
}
TRAINED = "minilm:publish=inputs"
NET = (
    "--net",
    "finetune",
    "--net-options",
    "head_options.hidden=8",
    "encoder_rate=0.1",
    "freeze=4",
)
RECIPE = ("--epochs", "2", "--batch-size", "8", "--no-tracking", "--workers", "0")


def typed(*words):
    """What a command printed; it has to end well."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = run(list(words))
    assert code == 0, out.getvalue()
    return out.getvalue()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A prepared dataset of sentences, with published tokens and one run on them."""
    try:
        store.mirror(describe("minilm").weights, store.DEFAULT_STORE)
    except WeightsError as error:
        pytest.skip(f"the offline weights cannot be had: {error}")
    place = tmp_path_factory.mktemp("finetune")
    write_labels(place / "labels.csv")
    root = str(place / "root")
    typed("prepare", "folder", "--labels", str(place / "labels.csv"), "--source", str(place),
          "--tasks", "mood=classification", "--root", root)  # fmt: skip
    typed("encode", "--root", root, "--encoders", TRAINED)
    typed("train", "--root", root, "--inputs", TRAINED, "--run", "tuned", *NET, *RECIPE)
    return root


def write_labels(path: Path) -> None:
    draws = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["name", "text", "speaker", "split", "mood"])
        for number in range(60):
            mood = ("glad", "sad")[number % 2]
            text = " and ".join(draws.choice(MOODS[mood], 1 + number % 3))
            split = "train" if number < 32 else "valid" if number < 48 else "test"
            rows.writerow([f"clip{number}", text, f"{split}{number % 4}", split, mood])


def scores(root: str, name: str) -> dict[int, dict[str, float]]:
    """Clip -> class -> probability."""
    uris = storage.names(f"{root}/scores/{name}")
    tables = [
        storage.read_table(f"{root}/scores/{name}/{u}") for u in uris if u.endswith("parquet")
    ]
    return {
        clip: dict(shares)
        for table in tables
        for clip, shares in zip(
            table["clip_id"].to_pylist(), table["probabilities"].to_pylist(), strict=True
        )
    }


class TestWhatIsKept:
    def test_the_run_holds_what_training_changed_and_nothing_else(self, root):
        (weights,) = Path(root, "runs", "tuned").rglob("model.safetensors")
        names = set(load_file(weights))
        inside = {name for name in names if name.startswith("net.branches.text.model.")}
        assert {name.split("encoder.layer.")[1].split(".")[0] for name in inside} == {"4", "5"}
        assert weights.stat().st_size < 25e6  # all of it are 91 MB

    def test_the_card_names_the_weights_that_training_started_from(self, root):
        (card,) = Path(root, "runs", "tuned").rglob("model.json")
        facts = json.loads(card.read_text())["inputs"]["text"]
        expected = [[w.name, w.uri, w.sha256] for w in describe("minilm").weights]
        assert facts["weights"] == expected

    def test_verify_loads_the_net_from_both(self, root):
        assert "cannot be loaded" not in typed("verify", "--root", root)

    def test_a_net_of_other_weights_is_refused(self, root, tmp_path):
        from fusion.predictor import Card
        from jobs.catalog.branches import branches_of

        (card,) = Path(root, "runs", "tuned").rglob("model.json")
        values = json.loads(card.read_text())
        values["inputs"]["text"]["weights"][0][2] = "0" * 64
        with pytest.raises(ConfigError, match="was fine-tuned from"):
            branches_of(Card.from_json(values), store.DEFAULT_STORE)


def refused(capsys, *words):
    """The line with which a command ends."""
    assert run(list(words)) != 0
    return capsys.readouterr().err


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("--net", "concat_mlp", "--inputs", TRAINED), "type --net finetune"),
            ((*NET, "--inputs", "minilm"), "no features 'minilm' under"),
            ((*NET, "--inputs", TRAINED, "--normalise", "speaker"), "stay as they are"),
            ((*NET, "--inputs", TRAINED, "--pca", "text=2"), "reads text as it is"),
            ((*NET, "--inputs", TRAINED, "--feature-noise", "0.2"), "cannot be given noise"),
            (
                ("--net", "finetune", "--inputs", TRAINED, "--net-options", "freeze=7"),
                "expected 0 to its 6 blocks",
            ),
        ],
    )
    def test_a_net_and_inputs_that_do_not_go_together(self, root, capsys, words, said):
        assert said in refused(capsys, "train", "--root", root, *words, *RECIPE)

    def test_a_store_without_the_weights_is_named(self, root, capsys, tmp_path):
        words = ("train", "--root", root, "--inputs", TRAINED, *NET, *RECIPE, "--run", "elsewhere")
        said = refused(capsys, *words, "--store", str(tmp_path))
        assert f"is not in the store {tmp_path}; type: affuse models" in said


@pytest.fixture(scope="module")
def bundle(root):
    """The run in a bundle."""
    typed("ensemble", "--root", root, "--runs", "tuned", "--bundle", "b", "--resamples", "100")
    return "b"


class TestABundle:
    @pytest.mark.parametrize("job", ["evaluate", "explain"])
    def test_is_opened_from_the_store_that_is_named(
        self, root, bundle, capsys, tmp_path, monkeypatch, job
    ):
        here = storage.absolute(store.DEFAULT_STORE)
        monkeypatch.setenv("HOME", str(tmp_path))
        words = (job, "--root", root, "--bundle", bundle, "--resamples", "100")
        assert "type: affuse models --encoders minilm:publish=inputs" in refused(capsys, *words)
        typed(*words, "--store", here)

    def test_has_a_linear_model_of_the_same_encoders_beside_it_once_the_advice_is_taken(self, root):
        words = ("--root", root, "--runs", "tuned", "--resamples", "100")
        out = typed("ensemble", *words, "--bundle", "before")
        said = re.search(rf"no {OF_STATES} is there; type: (.*)", out)
        assert "linear on the same features" not in said[0]
        for command in said[1].split(" && "):
            affuse, *more = shlex.split(command)
            assert affuse == "affuse"
            typed(*more)
        for job in (("ensemble", "--bundle", "after"), ("report",)):
            out = typed(*job, *words)
            assert re.search(rf"{OF_STATES}: run linear-\w+", out)
            assert re.search(rf"{OF_STATES} .*\d\.\d", out)

    def test_scores_raw_clips_as_it_was_evaluated(self, root, bundle):
        typed("evaluate", "--root", root, "--bundle", "b", "--resamples", "100")
        typed("score", "--root", root, "--bundle", "b", "--source", "clips", "--name", "raw")
        raw = scores(root, "raw")
        assert len(raw) == 60
        judged = storage.read_table(f"{root}/evaluations/b/predictions.parquet")
        assert judged.num_rows == 12
        for clip, logits in zip(
            *(judged[n].to_pylist() for n in ("clip_id", "scores")), strict=True
        ):
            shares = np.exp(logits) / np.exp(logits).sum()
            assert list(raw[clip].values()) == pytest.approx(shares, abs=1e-4)
