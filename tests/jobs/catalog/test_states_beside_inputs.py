"""The frozen encoder that is named beside one that is trained is one that can be typed."""

import pytest

from encoders import ENCODERS
from encoders.registry import describe, find
from jobs.catalog.branches import states_of

PUBLISHERS = sorted(name for name in ENCODERS if find(name).inputs is not None)


@pytest.mark.parametrize("name", PUBLISHERS)
def test_with_every_option_that_only_inputs_have(name):
    spec = find(name)
    options = {"publish": "inputs", **spec.options, **spec.inputs.options}
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
