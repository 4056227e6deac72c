"""A bundle that was fused with a large model's answers scores other clips without them, and says so."""

import pytest
import torch

from cluster import storage
from cluster.errors import ConfigError
from fusion.late import rule_class
from fusion.late.members import Members
from jobs import score
from jobs.catalog import layout
from jobs.scoring.opening import open_bundle

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
