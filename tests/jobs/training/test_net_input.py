"""What is trained is what is evaluated and scored: one function makes a net's input everywhere."""

import dataclasses
import importlib.util
import itertools
import shutil
from pathlib import Path

import pytest
import torch

from cluster import storage
from fusion.nets import NETS, net_axis, net_config
from fusion.predictor import Card, Feeding, Predictor, build, feeding_fields
from jobs import train
from jobs.__main__ import run as affuse
from jobs.catalog.manifest import read_manifest
from jobs.scoring.member_nets import TablesInHand, clips_without_labels
from jobs.training import train_part
from jobs.training.ignored import is_pooled
from jobs.training.loading import Data, Request, load, load_test
from jobs.training.net_input import feed_of_card, pool_of
from jobs.training.run import choice_of, request_of

CASES = Path(__file__).parents[2]
FEATURES = ("voice-1", "face-1")


def helper(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SMALL = helper(CASES / "fusion" / "small_nets.py").SMALL


class Roots:
    """The same clips as training rows and as test rows, and both with other last turns."""

    def __init__(self, folder: Path) -> None:
        write = helper(CASES / "jobs" / "small_root.py").write_root
        self.train, self.test, self.train_later, self.test_later = (
            write(
                str(folder / f"{split}{later}"),
                dialogues=True,
                splits=split,
                noise_on_last_turns=later,
            )
            for later in (False, True)
            for split in ("train", "test")
        )


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    return Roots(tmp_path_factory.mktemp("roots"))


def config(root: str, net: str, **changes) -> train.Config:
    inputs = ("voice",) if net == "lstm" else ("voice", "face")
    return train.Config(root=root, inputs=inputs, net=net, net_options=SMALL[net], **changes)


def trained(root: str, net: str, **changes) -> tuple[Data, Card, Predictor]:
    """What train loads, and the card and net that it would publish (weights drawn, not fitted)."""
    asked = config(root, net, **changes)
    data = load(request_of(asked))
    card = train_part.card_of(choice_of(asked), data, {})
    torch.manual_seed(1)
    return data, Card.from_json(card.to_json()), build(card).eval()


def scored(root: str, card: Card):
    """The rows as score makes them from the tables of a unit."""
    columns = ["clip_id", "name", "group", "speaker", "dialogue", "turn"]
    facts = sorted(read_manifest(root, columns).to_pylist(), key=lambda fact: fact["clip_id"])
    # Rows of a unit come in any order.
    tables = {
        name: storage.read_table(f"{root}/features/{name}/rows.parquet").sort_by(
            [("clip_id", "descending")]
        )
        for name in FEATURES
    }
    clips = clips_without_labels(facts)
    return feed_of_card(card, clips, TablesInHand(clips, tables))


def batch_of(feed):
    return feed.batch(torch.arange(len(feed.lengths)))


def assert_same_input(ours, theirs) -> None:
    assert ours.inputs.keys() == theirs.inputs.keys()
    for name, sequence in ours.inputs.items():
        assert torch.equal(sequence.mask, theirs.inputs[name].mask)
        torch.testing.assert_close(
            sequence.values, theirs.inputs[name].values, rtol=1e-6, atol=1e-6
        )
    assert (ours.axis, ours.causal) == (theirs.axis, theirs.causal)
    assert torch.equal(ours.clip_id, theirs.clip_id)
    if ours.axis == "dialogue":
        assert torch.equal(ours.steps, theirs.steps)
        assert torch.equal(ours.speaker, theirs.speaker)


@pytest.fixture(scope="module")
def batches(roots):
    """A net's input by path; loaded once for all nets of one axis and the same inputs."""
    found = {}

    def of(net: str, **how):
        key = (net_axis(net), net == "lstm", tuple(how.items()))
        if key not in found:
            data, card, _ = trained(roots.train, net, **how)
            paths = data.feed, load_test(roots.test, card, "emotion").feed, scored(roots.test, card)
            found[key] = card, [batch_of(feed) for feed in paths]
        return found[key]

    return of


@pytest.mark.parametrize("net", list(NETS))
def test_evaluate_and_score_give_a_net_what_train_gave_it(batches, net):
    choices = itertools.product(
        ("none", "mean", "mean_std"), ("none", "speaker", "speaker:3"), (False, True)
    )
    for pool, normalise, causal in choices:
        card, (ours, *others) = batches(net, pool=pool, normalise=normalise, causal=causal)
        predictor = build(
            dataclasses.replace(
                card, net=net, config=dataclasses.asdict(net_config(net, SMALL[net]))
            )
        ).eval()
        logits = predictor(ours).logits["emotion"]
        for theirs in others:
            assert_same_input(ours, theirs)
            again = predictor(theirs).logits["emotion"]
            torch.testing.assert_close(logits, again, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("net", [name for name in NETS if net_axis(name) == "dialogue"])
@pytest.mark.parametrize("causal", [True, False])
def test_later_turns_change_earlier_outputs_of_no_causal_net_in_any_path(roots, net, causal):
    data, card, predictor = trained(roots.train, net, causal=causal)
    later = trained(roots.train_later, net, causal=causal)[0].feed
    pairs = {
        "train": (data.feed, later),
        "evaluate": tuple(
            load_test(root, card, "emotion").feed for root in (roots.test, roots.test_later)
        ),
        "score": tuple(scored(root, card) for root in (roots.test, roots.test_later)),
    }
    for path, feeds in pairs.items():
        before, after = (predictor(batch_of(feed)).logits["emotion"][:, :-1] for feed in feeds)
        assert (float((before - after).detach().abs().max()) < 1e-6) == causal, path


def test_a_reduction_is_decided_in_training_and_not_anew(roots):
    _, card, _ = trained(roots.train, "concat_mlp", pool="mean_std")
    assert card.inputs["audio"]["pool"] == "mean_std"
    # Clips of one step only: their spread is zero, and the width stays that of training.
    one = frozenset(
        row["clip_id"]
        for row in storage.read_table(f"{roots.test}/features/voice-1/rows.parquet").to_pylist()
        if len(row["valid"]) == 1
    )
    request = Request(root=roots.train, inputs=("voice",), pool="mean_std", clips=one)
    assert load(request).inputs["audio"]["pool"] == "mean"
    alone = load(dataclasses.replace(request, pool="none"), card.inputs)
    assert alone.dims == {"audio": 12, "video": 8}


@pytest.mark.parametrize(
    ("asked", "axis", "single", "expected"),
    [
        ("none", "clip", False, "none"),
        ("none", "dialogue", False, "mean"),
        ("none", "dialogue", True, "mean"),
        ("mean_std", "clip", True, "mean"),
        ("mean_std", "dialogue", False, "mean_std"),
    ],
)
def test_how_an_input_is_reduced(asked, axis, single, expected):
    assert pool_of(asked, axis, single=single) == expected


class TestCard:
    """`affuse train` writes it; nothing that shapes a net's input may be missing on it."""

    def test_every_field_differs_from_its_default_when_its_flag_does(self, roots):
        flags = [
            "train", "--root", roots.train, "--inputs", "voice", "face", "--net", "sdt",
            "--net-options", "hidden=8", "heads=2", "feedforward=8",
            "--pool", "mean_std", "--normalise", "speaker:3", "--causal", "--pca", "audio=3",
            "--epochs", "1", "--run", "all", "--no-tracking",
        ]  # fmt: skip
        assert affuse(flags) == 0
        card = Card.from_json(storage.read_json(f"{roots.train}/runs/all/fold=0/seed=0/model.json"))
        for item in dataclasses.fields(Card):
            if item.default is not dataclasses.MISSING:
                assert getattr(card, item.name) != item.default, item.name
            elif item.default_factory is not dataclasses.MISSING:
                assert getattr(card, item.name) != item.default_factory(), item.name

    def test_a_field_of_a_request_is_on_the_card_or_says_where_and_which_clips_only(self):
        where_and_which = {
            "root", "inputs", "tasks", "axis", "views", "folds", "memory_gb", "cache", "test", "clips",
        }  # fmt: skip
        fields = {item.name for item in dataclasses.fields(Request)}
        assert fields - where_and_which == {item.name for item in dataclasses.fields(Feeding)}
        assert {item.name for item in dataclasses.fields(Feeding)} <= {
            item.name for item in dataclasses.fields(Card)
        }

    def test_the_fields_of_a_request_are_those_of_its_card(self, roots):
        how = {"pool": "mean", "normalise": "speaker", "causal": True}
        assert feeding_fields(trained(roots.train, "sdt", **how)[1]) == how


class TestCausalRuns:
    """`affuse evaluate --runs` of a net that was trained with --causal."""

    @pytest.fixture(scope="class")
    def split_roots(self, tmp_path_factory):
        """Two roots that differ in the last turn of every dialogue."""
        folder = tmp_path_factory.mktemp("causal")
        write = helper(CASES / "jobs" / "small_root.py").write_root
        first, second = (
            write(str(folder / f"later{later}"), dialogues=True, noise_on_last_turns=later)
            for later in (False, True)
        )
        flags = [
            "train", "--root", first, "--inputs", "voice", "face", "--net", "sdt",
            "--net-options", "hidden=8", "heads=2", "feedforward=8", "--causal",
            "--tasks", "emotion", "--epochs", "2", "--run", "c", "--no-tracking",
        ]  # fmt: skip
        assert affuse(flags) == 0
        shutil.copytree(f"{first}/runs/c", f"{second}/runs/c")
        return first, second

    def earlier_turns(self, root: str) -> list[list[float]]:
        assert affuse(["evaluate", "--root", root, "--runs", "c", "--task", "emotion"]) == 0
        rows = storage.read_table(f"{root}/evaluations/c/predictions.parquet").sort_by("clip_id")
        return [row["scores"] for row in rows.to_pylist() if (row["clip_id"] - 100) % 8]

    def test_evaluate_reads_no_later_turn(self, split_roots):
        first, second = map(self.earlier_turns, split_roots)
        assert torch.tensor(first) == pytest.approx(torch.tensor(second), abs=1e-6)

    def test_a_card_that_does_not_say_so_is_read_with_the_config_of_its_run(
        self, split_roots, capsys
    ):
        first = self.earlier_turns(split_roots[0])
        for root in split_roots:
            uri = f"{root}/runs/c/fold=0/seed=0/model.json"
            storage.publish_json({**storage.read_json(uri), "causal": False}, uri)
        capsys.readouterr()
        again, later = map(self.earlier_turns, split_roots)
        assert first == again
        assert torch.tensor(first) == pytest.approx(torch.tensor(later), abs=1e-6)
        assert (
            "c: its card does not say that it was trained with --causal" in capsys.readouterr().out
        )


def test_inputs_that_a_model_reads_are_not_pooled_and_others_beside_them_are(root):
    uri = f"{root}/features/voice-1/descriptor.json"
    storage.publish_json({**storage.read_json(uri), "options": {"publish": "inputs"}}, uri)
    asked = config(root, "finetune", pool="mean")
    assert is_pooled(asked)
    assert not is_pooled(dataclasses.replace(asked, inputs=("voice",)))
