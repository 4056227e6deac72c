"""A bundle of words that were heard knows who heard them, whatever options and weights that one has."""

import json

import pytest

from cluster.errors import ConfigError
from encoders.registry import describe
from jobs.catalog import branches
from jobs.scoring import opening

EARS = (
    "whisper_tiny_en_asr",
    "whisper_tiny_en_asr:word_times=false",
    "whisper_small_asr:language=de",
    "whisper_small_asr:weights=file://{place}",
    "sensevoice_asr:weights=file://{place},language=yue",
)


def weights(place):
    """A folder of weights that nobody reads here."""
    (place / "model").mkdir()
    (place / "model" / "model.pt").write_bytes(b"x")
    return place / "model"


def card_of(root, text):
    """Facts of an input of minilm that reads what a transcriber wrote, as a run's card has them."""
    ear = describe(text)
    folder = root / "transcripts" / ear.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "descriptor.json").write_text(json.dumps(ear.facts()))
    encoder = describe("minilm", upstream=(ear.fingerprint,))
    facts = branches.input_facts(str(root), encoder.facts(), encoder.folder, "none")
    return ear, encoder, json.loads(json.dumps(facts))


@pytest.mark.parametrize("text", EARS)
def test_the_card_leads_to_the_same_transcriber_and_encoder(tmp_path, text):
    place = weights(tmp_path)
    for each in EARS:  # others beside it are passed over
        card_of(tmp_path, each.format(place=place))
    ear, encoder, facts = card_of(tmp_path, text.format(place=place))
    assert opening._descriptor(facts) == (encoder, ear)


def test_a_card_that_does_not_name_it_finds_one_without_options(tmp_path):
    ear, encoder, facts = card_of(tmp_path, "whisper_small_asr")
    del facts["transcriber"]
    assert opening._descriptor(facts) == (encoder, ear)


def test_an_encoder_that_heard_nobody_names_nobody(tmp_path):
    encoder = describe("minilm")
    facts = branches.input_facts(str(tmp_path), encoder.facts(), encoder.folder, "none")
    assert "transcriber" not in facts
    assert opening._descriptor(facts) == (encoder, None)


def test_other_weights_of_the_transcriber_are_refused(tmp_path):
    _, _, facts = card_of(tmp_path, f"sensevoice_asr:weights=file://{weights(tmp_path)}")
    facts["transcriber"]["options"]["language"] = "ko"
    with pytest.raises(ConfigError, match="the bundle was trained on minilm-"):
        opening._descriptor(facts)
