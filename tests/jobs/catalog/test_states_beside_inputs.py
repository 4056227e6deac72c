"""Beside an encoder that is trained: its frozen one as it is typed, and the store of its weights."""

import pytest

from cluster import storage
from encoders import ENCODERS
from encoders.options import defaults_of
from encoders.registry import describe, find
from encoders.store import DEFAULT_STORE
from fusion.predictor import Card
from jobs.catalog import layout
from jobs.catalog.branches import OWNER, states_of, store_of_net

PUBLISHERS = sorted(name for name in ENCODERS if find(name).inputs is not None)


@pytest.mark.parametrize("name", PUBLISHERS)
def test_with_every_option_that_only_inputs_have(name):
    spec = find(name)
    options = {"publish": "inputs", **defaults_of({**spec.options, **spec.inputs.options})}
    if "loud" in spec.options:  # 0 stands in no descriptor
        options |= {"loud": 30}
    if spec.own_weights:
        options |= {"weights": "file:///none"}
        options |= {k: v for k, v in {"dim": 32, "depth": 2}.items() if k in spec.options}
    typed = ",".join(f"{key}={value}" for key, value in options.items() if value != "")
    inputs = f"{name}:{typed}"
    assert describe(inputs).options["publish"] == "inputs"
    states = describe(states_of(inputs))
    assert "publish" not in states.options
    kept = {key: options[key] for key in spec.options}
    assert {key: states.options[key] for key in kept} == kept


@pytest.mark.parametrize("name", ["minilm", "minilm:pool=mean", "au", "hub_video:px=32"])
def test_what_publishes_no_inputs_stays_as_it_is(name):
    assert states_of(name) == name


def test_a_store_that_is_not_on_this_machine_gives_way_to_its_own(tmp_path):
    root, folder = str(tmp_path / "root"), str(tmp_path / "root/runs/tuned/fold=0/seed=0")
    card = Card(net=OWNER, config={}, tasks={}, dims={})

    def chosen(named: str) -> str:
        storage.publish_json({"store": named}, layout.run_uri(root, "tuned", layout.CONFIG))
        return store_of_net(card, folder, "tuned")

    (tmp_path / "here").mkdir()
    assert chosen(str(tmp_path / "here")) == str(tmp_path / "here")
    assert chosen(str(tmp_path / "gone")) == chosen("") == DEFAULT_STORE
    assert chosen("s3://bucket/store") == "s3://bucket/store"
