"""Of two searches that start at once under one name one has it; the other stops and writes nothing more."""

import dataclasses
from pathlib import Path

import pytest

from cluster import storage
from cluster.errors import ConfigError
from cluster.session import SessionConfig
from jobs import train, tune

STOPS = "was started anew with another config, and this start stops"


@pytest.fixture
def config(root):
    return tune.Config(
        root=root, inputs=("voice", "face"), tasks=("emotion",), pool="mean", folds="speaker",
        epochs=2, run="t", trials=4, keep=1, member_seeds=(), ensemble=False, tracking=False,
        session=SessionConfig(num_cpus=1),
    )  # fmt: skip


def claim(config: tune.Config) -> None:
    tune.claim(config, tune.base_of(config, {}), {})


@pytest.mark.parametrize("module", ["before the name is read", "after it"])
def test_one_that_comes_between_two_looks_at_the_name_keeps_it(config, monkeypatch, module):
    other = dataclasses.replace(config, search_seed=1)
    if module == "after it":
        from jobs.tuning import hold as place

        name = "take"
    else:
        place, name = train, "check_rows"
    plain = getattr(place, name)

    def after_the_other(*given):
        monkeypatch.setattr(place, name, plain)
        claim(other)
        storage.publish_json({}, f"{config.root}/runs/t/trials/00000.json")
        return plain(*given)

    monkeypatch.setattr(place, name, after_the_other)
    with pytest.raises(ConfigError, match="type another --run"):
        tune.main(config)
    assert storage.read_json(f"{config.root}/runs/t/config.json")["search_seed"] == 1


@pytest.mark.ray
@pytest.mark.parametrize("place", ["run_trials", "keep_best"])
def test_one_whose_name_was_taken_enters_no_trial_and_no_summary(config, monkeypatch, place):
    plain, before = getattr(tune, place), []

    def after_the_other(*given):
        folder = Path(config.root, "runs/t")
        before.extend(sorted(folder.rglob("*")))
        storage.publish_json({"identity": "another"}, f"{folder}/identity.json")
        return plain(*given)

    monkeypatch.setattr(tune, place, after_the_other)
    with pytest.raises(ConfigError, match=STOPS):
        tune.main(config)
    if place == "run_trials":
        assert sorted(Path(config.root, "runs/t").rglob("*")) == before
    assert not Path(config.root, "runs/t/summary.json").exists()
