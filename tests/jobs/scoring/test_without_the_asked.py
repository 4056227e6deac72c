"""A bundle with a large model among its members asks it of a dataset's clips, or scores without it."""

import pytest
import torch

from cluster import storage
from cluster.errors import ConfigError
from fusion.late import rule_class
from fusion.late.members import Members
from jobs import score
from jobs.catalog import layout
from jobs.scoring.opening import open_bundle
from tests.jobs.asking.fake_server import Fake, serving

NAMES = ("words", "voice", "asked")


@pytest.fixture
def root(toys, tmp_path):
    """Words, voice and, between them in the bundle `b`, a large model; `plain` is the same without it."""
    toys.corpus.write_corpus(tmp_path, 6)
    toys.bundle.write_bundle(tmp_path)
    where = layout.bundle_uri(str(tmp_path), "b", layout.BUNDLE)
    facts = storage.read_json(where)
    storage.publish_json({**facts, "name": "plain"}, where.replace("/b/", "/plain/"))
    for member in facts["members"]:
        for name in ("model.safetensors", "model.json"):
            file = layout.nets_uri(
                where.removesuffix("/bundle.json"), member["run"], "seed=0", name
            )
            storage.publish_bytes(storage.read_bytes(file), file.replace("/b/", "/plain/"))
    storage.publish_json({**facts, **fused("words", "asked", "voice")}, where)
    return tmp_path


def fused(*names):
    """A rule over some members that counts them alike, `asked` being a large model."""
    rule = rule_class("mean")
    rows = Members.from_logits(names, "classification", torch.zeros(len(names), 6, 3))
    fitted = rule.fit(rule.Config(), rows, torch.arange(6) % 3)
    return {"rule": fitted.state(), "asked": ["asked"]}


def scored(root, bundle):
    files = tuple(str(root / "media" / f"{i}.wav") for i in range(6))
    out = root / f"{bundle}.parquet"
    score.main(score.Config(clips=files, root=str(root), bundle=bundle, out=str(out)))
    return storage.read_table(str(out)).drop_columns("bundle").to_pylist()


def test_answers_are_those_of_the_other_members_and_one_line_says_so(root, capsys):
    found = scored(root, "b")
    said = capsys.readouterr().out
    assert said.count("b: scores without asked, a large model's answers") == 1
    for row, other in zip(found, scored(root, "plain"), strict=True):
        assert dict(row.pop("probabilities")) == pytest.approx(dict(other.pop("probabilities")))
        assert row.pop("confidence") == pytest.approx(other.pop("confidence"))
        assert row == other
    assert "scores without" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "facts",
    [fused("asked"), {**fused(*NAMES), "imported": ["/elsewhere/voice.csv"]}],
    ids=["nothing else", "and imported ones"],
)
def test_where_nothing_is_left_that_could_answer_it_is_refused(root, facts):
    where = layout.bundle_uri(str(root), "b", layout.BUNDLE)
    storage.publish_json({**storage.read_json(where), **facts}, where)
    with pytest.raises(ConfigError, match=r"say nothing of other clips: .*asked"):
        open_bundle("b", str(root))


class TestServer:
    """With a server that is asked about the clips of the dataset."""

    @pytest.fixture
    def fake(self):
        def sad(text, options):
            return [0.9 if option == "sad" else 0.05 for option in options]

        with serving(Fake(model=sad)) as fake:
            yield fake

    @pytest.fixture
    def ask(self, root, fake, here):
        """Scores the dataset with the bundle `b`; gives its rows by clip."""
        where = layout.bundle_uri(str(root), "b", layout.BUNDLE)
        way = {"model": "big", "show": ["text"], "orders": 1}
        way["limits"] = {"tries": 2, "pause_s": 0.01}
        storage.publish_json({**storage.read_json(where), "asked": {"asked": way}}, where)

        def ask(*, url=fake.url, **changes):
            score.main(
                score.Config(root=str(root), bundle="b", server=url, source="clips", **changes)
            )
            table = score.read_scores(str(root), changes.get("name", "b"))
            return {row["clip_id"]: row for row in table.to_pylist()}

        return ask

    def test_its_answers_are_fused_and_nobody_is_asked_twice(self, root, fake, ask, capsys):
        without = ask(url=None, name="without")
        assert "scores without asked" in capsys.readouterr().out
        assert fake.bodies == []
        found = ask()
        said = capsys.readouterr().out
        assert "big: 6 of 6 clips answered" in said
        assert "scores without" not in said
        for clip, row in found.items():
            mine, theirs = dict(row["probabilities"]), dict(without[clip]["probabilities"])
            shares = {"calm": 0.05, "happy": 0.05, "sad": 0.9}
            for name, share in shares.items():
                assert mine[name] == pytest.approx((2 * theirs[name] + share) / 3, abs=1e-5)
        asked = len(fake.bodies)
        assert asked == 6
        ask()
        assert len(fake.bodies) == asked
        with pytest.raises(ConfigError, match="asked none, now"):
            ask(name="without")
        assert len(fake.bodies) == asked

    def test_a_server_that_is_down_costs_one_line_and_its_answers_are_taken_in_later(
        self, fake, ask, capsys
    ):
        fake.fails = lambda number: 503
        alone = ask()
        said = capsys.readouterr().out
        assert said.count("the other clips are scored without it") == 1
        assert "big: 0 of 6 clips answered" in said
        assert all(row["status"] == "ok" for row in alone.values())
        fake.fails = lambda number: None
        found = ask()
        assert all(found[clip]["probabilities"] != alone[clip]["probabilities"] for clip in alone)

    def test_files_have_no_words_to_show(self, root):
        with pytest.raises(ConfigError, match="affuse prepare"):
            score.Config(clips=("x.wav",), bundle="b", server="http://127.0.0.1:1/v1")

    def test_a_bundle_of_old_does_not_say_how_it_was_asked(self, root, fake):
        with pytest.raises(ConfigError, match="affuse ensemble again"):
            score.main(score.Config(root=str(root), bundle="b", server=fake.url))
