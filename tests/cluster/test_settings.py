"""Configs survive the trip through JSON and YAML, and a wrong name or type is answered."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import ConfigError
from cluster.settings import from_mapping, nearest, partial, read_mapping, to_mapping


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    rank: int = 8
    dropout: float = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    root: str
    names: tuple[str, ...] = ()
    sizes: tuple[int, float] = (1, 0.5)
    options: Mapping[str, int | float | str | bool] = dataclasses.field(default_factory=dict)
    net: Inner = Inner()
    cap: int | None = None
    device: Literal["cpu", "gpu"] = "cpu"
    share: float = 0.5
    fast: bool = False


finite = st.floats(allow_nan=False, allow_infinity=False)
configs = st.builds(
    Config,
    root=st.text(),
    names=st.lists(st.text(), max_size=3).map(tuple),
    sizes=st.tuples(st.integers(), finite),
    options=st.dictionaries(
        st.text(min_size=1), st.one_of(st.integers(), finite, st.text(), st.booleans()), max_size=4
    ),
    net=st.builds(Inner, rank=st.integers(), dropout=finite),
    cap=st.none() | st.integers(),
    device=st.sampled_from(["cpu", "gpu"]),
    share=finite,
    fast=st.booleans(),
)


class TestRoundTrip:
    @given(config=configs)
    def test_through_json_text(self, config):
        assert from_mapping(Config, json.loads(json.dumps(to_mapping(config)))) == config

    @given(config=configs)
    def test_through_a_json_file_read_as_a_config(self, config, tmp_path_factory):
        file = tmp_path_factory.mktemp("c") / "config.json"
        file.write_text(json.dumps(to_mapping(config), indent=2))
        assert from_mapping(Config, read_mapping(str(file))) == config

    @given(config=configs)
    def test_through_a_yaml_file(self, config, tmp_path_factory):
        file = tmp_path_factory.mktemp("c") / "config.yaml"
        file.write_text(yaml.safe_dump(to_mapping(config)))
        assert from_mapping(Config, read_mapping(str(file))) == config

    @pytest.mark.parametrize("text", ["1e-5", "1E5", "-2e+3", "1.5e-7", "3e0"])
    def test_a_number_with_an_exponent_is_a_number(self, tmp_path, text):
        file = tmp_path / "c.yaml"
        file.write_text(f"share: {text}\n")
        assert read_mapping(str(file)) == {"share": float(text)}

    def test_types_inside_a_mapping_are_kept(self):
        values = {"root": "r", "options": {"a": 1, "b": 1.0, "c": True, "d": "x"}}
        options = from_mapping(Config, values).options
        assert [type(value) for value in options.values()] == [int, float, bool, str]

    def test_dashes_stand_for_underscores(self):
        @dataclasses.dataclass(frozen=True, kw_only=True)
        class Dashed:
            batch_size: int

        assert from_mapping(Dashed, {"batch-size": 3}).batch_size == 3

    def test_paths_become_text_and_come_back(self):
        @dataclasses.dataclass(frozen=True, kw_only=True)
        class Filed:
            file: Path

        assert to_mapping(Filed(file=Path("a/b"))) == {"file": "a/b"}
        assert from_mapping(Filed, {"file": "a/b"}) == Filed(file=Path("a/b"))


class TestRefusals:
    @pytest.mark.parametrize(
        ("values", "said"),
        [
            ({"rot": "r"}, "unknown field 'rot'; did you mean 'root'"),
            ({"zzzz": 1}, "unknown field 'zzzz'; known: cap, device"),
            ({}, r"fields \['root'\] have no default"),
            ({"root": 3}, "config.root: expected str, came 3"),
            ({"root": "r", "cap": True}, "config.cap: expected int, came True"),
            ({"root": "r", "cap": "x"}, "config.cap: expected int, came 'x'"),
            ({"root": "r", "net": {"rnk": 3}}, "config.net: unknown field 'rnk'; did you mean"),
            ({"root": "r", "net": 3}, "expected fields of Inner, came 3"),
            ({"root": "r", "names": "a"}, "expected a list, came 'a'"),
            ({"root": "r", "sizes": [1]}, "expected 2 values"),
            ({"root": "r", "options": [1]}, "expected `key: value` pairs"),
            ({"root": "r", "device": "cpx"}, "'cpx'; did you mean 'cpu'"),
            ({"root": "r", "share": None}, "config.share: expected float, came None"),
        ],
    )
    def test_a_wrong_name_or_value_is_answered(self, values, said):
        with pytest.raises(ConfigError, match=said):
            from_mapping(Config, values)

    def test_nothing_near_lists_all_names(self):
        assert nearest("zzz", ["b", "a"]) == "known: a, b"


class TestPartial:
    def test_what_is_absent_is_marked_and_the_rest_is_default(self):
        marker = object()
        config = partial(Config, {"share": 1}, absent=marker, where="c.yaml")
        assert config.root is marker
        assert config.share == 1.0
        assert config.options == {}

    def test_an_unknown_field_is_refused(self):
        with pytest.raises(ConfigError, match=r"c\.yaml: unknown field 'sharee'"):
            partial(Config, {"sharee": 1}, absent=None, where="c.yaml")
