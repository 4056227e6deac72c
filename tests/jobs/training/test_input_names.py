"""An option that names an input which is not there is refused before anything is read."""

import dataclasses
import typing
from collections.abc import Mapping

import pytest

from cluster import settings
from cluster.errors import ConfigError
from fusion.nets import NETS, net_class
from jobs import train, tune
from jobs.catalog import layout
from jobs.training.input_names import check_option_names
from tests.jobs.small_root import write_root

WORDS = ("anchor", "pooled", "recurrent", "timeline")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> str:
    return write_root(str(tmp_path_factory.mktemp("names") / "root"))


def naming_options() -> list[tuple[str, str]]:
    """Net and field of every option that takes names of inputs."""
    found = []
    for net in NETS:
        for field, hint in typing.get_type_hints(net_class(net).Config).items():
            by_name = any(
                typing.get_origin(each) is Mapping or "Mapping[str, int]" in str(each)
                for each in (hint, *typing.get_args(hint))
            )
            if field in WORDS or (by_name and field not in ("profile", "head_options")):
                found.append((net, field))
    return found


def typed(field: str, name: str) -> dict[str, object]:
    return {field: name} if field in WORDS else {f"{field}.{name}": 2}


def test_every_kind_of_option_is_among_them():
    found = naming_options()
    assert {field for _, field in found} == {
        *WORDS, "freeze", "hidden", "kernel", "out", "post", "recurrent_out",
    }  # fmt: skip
    assert len(found) == 23


@pytest.mark.parametrize(("net", "field"), naming_options())
def test_a_name_that_no_input_has_is_refused(root, net, field):
    config = train.Config(
        root=root, inputs=("voice", "face"), net=net, net_options=typed(field, "audoi")
    )
    with pytest.raises(ConfigError, match=r"no input is called 'audoi'; did you mean 'audio'\?"):
        train.main(config)


@pytest.mark.parametrize(("net", "field"), naming_options())
def test_a_name_that_an_input_has_is_not(root, net, field):
    options = {**typed(field, "video"), f"{net}.*": 1}
    check_option_names(root, [("voice",), ("face",)], options.items())


def test_names_of_a_net_on_trained_encoders_are_held_against_the_inputs_too(root):
    for options in ({"head_options.recurrent": "txt"}, {"head_options": {"hidden.txt": 8}}):
        with pytest.raises(ConfigError, match=r"no input is called 'txt'; known: audio, video"):
            check_option_names(root, [("voice", "face")], options.items())


@pytest.mark.parametrize(
    "space",
    [
        {"net": ["lmf"], "lmf.recurrent": ["audio", "txt"]},
        {"net": ["lmf"], "lmf.hidden.txt": {"int": [8, 16]}},
    ],
)
def test_a_search_takes_names_that_some_set_of_inputs_has_and_no_other(root, space, tmp_path):
    path = tmp_path / "space.yaml"
    given = {**space, "inputs": [["voice"], ["face"]]}
    path.write_text(str(given).replace("'", '"'))
    config = tune.Config(
        root=root, inputs=("voice", "face"), space=str(path), folds="speaker", tracking=False
    )
    with pytest.raises(ConfigError, match=r"no input is called 'txt'; known: audio, video"):
        tune.main(config)


def test_a_member_of_a_search_has_options_of_inputs_that_other_sets_have(tmp_path):
    root = write_root(str(tmp_path / "root"))
    options = {"hidden.audio": 8, "recurrent": "video"}
    config = train.Config(
        root=root, inputs=("voice",), net="lmf", net_options=options, run="s-00003", folds="speaker",
        tasks=("emotion",), epochs=1, tracking=False,
    )  # fmt: skip
    assert train.train_without_printing(settings.to_mapping(config)).startswith("s-00003: ")
    train.main(dataclasses.replace(config, max_failures=1))
    with pytest.raises(ConfigError, match="no input is called 'video'"):
        train.main(dataclasses.replace(config, run="typed"))


@pytest.mark.parametrize("job", [train, tune])
def test_principal_components_of_an_input_that_is_not_there_are_refused(root, job):
    config = job.Config(
        root=root, inputs=("voice", "face"), pca={"voice": 2}, folds="speaker", tracking=False
    )
    with pytest.raises(ConfigError, match=r"pca: no input is called 'voice'; known: audio, video"):
        job.main(config)
    assert layout.runs_there(root) == []  # the name is free for what is typed next


def test_names_of_people_s_facts_are_not_those_of_inputs(root):
    check_option_names(root, [("voice",)], [("profile.age", 5), ("profile", {"sex": 2})])
