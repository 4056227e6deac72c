"""A root is the same through whatever path it is reached, and so are its bundles and scores."""

import json
from pathlib import Path

import pytest

from jobs import __main__ as command
from jobs.catalog import bundles

TRAIN = "train --root {root} --inputs voice --net linear --folds speaker --refit --no-tracking --run voice"
ENSEMBLE = (
    "ensemble --root {root} --runs voice --task emotion --bundle b --resamples 100 --no-tracking"
)
SCORE = "score --root {root} --bundle b --source features"


@pytest.fixture
def scored(root):
    """A root with scores of a bundle."""
    for words in (TRAIN, ENSEMBLE, SCORE):
        assert command.run(words.format(root=f"{root}/").split()) == 0, words
    return root


@pytest.mark.parametrize("is_old", [False, True], ids=["present", "claims of an earlier version"])
def test_a_bundle_that_is_made_again_through_a_link_goes_on_with_its_scores(
    scored, is_old, tmp_path, capsys
):
    claim = Path(scored, "scores/b/bundle.json")
    if is_old:
        document = json.loads(claim.read_text())
        document["facts"] = bundles.read_bundle(scored, "b")
        del document["facts"]["judged"]
        claim.write_text(json.dumps(document))
    before = claim.read_text()
    link = tmp_path / "link"
    link.symlink_to(scored)
    for words in (f"{ENSEMBLE} --session.num-cpus 1", SCORE):
        assert command.run(words.format(root=link).split()) == 0, capsys.readouterr().err
    assert json.loads(claim.read_text()) == json.loads(before)


def test_another_fusion_has_no_part_in_scores_that_are_there(scored, capsys):
    assert command.run(f"{ENSEMBLE} --rule log_pool".format(root=scored).split()) == 0
    assert command.run(SCORE.format(root=scored).split()) == 2
    assert "the bundle has changed since" in capsys.readouterr().err


def test_predictions_made_elsewhere_are_known_by_their_names(scored):
    facts = bundles.read_bundle(scored, "b")
    places = [
        {**facts, "imported": [place]} for place in ("/a/said.csv", "/b/said.csv", "/a/other.csv")
    ]
    first, moved, other = map(bundles.digest, places)
    assert first == moved != other
    assert bundles.digest({**facts, "judged": {}}) == bundles.digest(facts)
