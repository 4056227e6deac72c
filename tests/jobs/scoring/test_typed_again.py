"""What `score` says to type in place of a command that it refuses does what was wanted."""

import shlex

import pytest

from cluster.errors import ConfigError
from jobs import score
from jobs._cli import parse
from jobs.scoring.claim import command_again
from jobs.scoring.opening import open_bundle
from jobs.stream.job import DecodingConfig

DATASET = {"root": "/my data", "bundle": "bx"}
SETTINGS = [
    {},
    {"per": ("speaker",)},
    {"per": ("speaker", "dialogue"), "pooling": "log"},
    {"coverage": 0.9},
    {"transcriber": "whisper_tiny", "source": "clips"},
    {"server": "http://127.0.0.1:9/v1"},
    {"store": "/weights"},
    {"decoding": DecodingConfig(time_limit_s=7.0)},
]


def typed(command):
    """A command read back."""
    job, *words = shlex.split(command.removeprefix("affuse "))
    return parse(job, score, words)


@pytest.mark.parametrize("settings", SETTINGS)
def test_under_another_name_every_setting_stays(settings):
    config = score.Config(**DATASET, **settings)
    again = typed(command_again(config, "bx", name="OTHER"))
    assert again == score.Config(**DATASET, **settings, name="OTHER")


def test_one_bundle_of_several_goes_by_itself():
    config = score.Config(**DATASET, also=("by",), per=("file",))
    again = typed(command_again(config, "by", name="OTHER"))
    assert again == score.Config(root="/my data", bundle="by", per=("file",), name="OTHER")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"also": ("by", "bz")},
        {"coverage": 0.8},
        {"by": "window", "window_s": 3.0, "step_s": 0.5},
    ],
)
def test_for_files_in_another_place_too(settings):
    config = score.Config(**DATASET, **settings, clips=("a.wav",), out="s.csv")
    again = typed(command_again(config, "bx", out="t.csv"))
    assert again == score.Config(**DATASET, **settings, clips=("FILES",), out="t.csv")


def test_a_refusal_for_other_settings_keeps_those_that_were_typed(toys, tmp_path):
    toys.corpus.write_corpus(tmp_path, 6)
    toys.bundle.write_bundle(tmp_path)
    config = {"root": str(tmp_path), "bundle": "b"}
    score.begin(score.Config(**config), *score.open_judges(score.Config(**config)))
    other = score.Config(**config, per=("speaker",), source="clips")
    with pytest.raises(ConfigError, match="--source clips --per speaker --name OTHER"):
        score.begin(other, *score.open_judges(other))


@pytest.mark.parametrize("has_root", [True, False])
def test_a_folder_that_is_here_is_named_as_it_is_typed(toys, tmp_path, monkeypatch, has_root):
    root = tmp_path / "root"
    toys.corpus.write_corpus(root, 6)
    toys.bundle.write_bundle(root)
    (tmp_path / "hub").symlink_to(root / "bundles" / "b")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"type: --bundle \./hub$"):
        open_bundle("hub", str(root) if has_root else "")
    assert open_bundle("./hub", "").name == "b"
    with pytest.raises(Exception, match="'nowhere'") as refused:
        open_bundle("nowhere", str(root) if has_root else "")
    assert "./nowhere" not in str(refused.value)
