"""What an option may be is known where an encoder is described, before a model is loaded."""

import json

import pytest

from cluster.errors import AffuseError, ConfigError
from encoders import ENCODERS, TRANSCRIBERS
from encoders.audio.whisper_small_asr import LANGUAGES
from encoders.decoding.frame_times import choose
from encoders.decoding.timeline import Timeline
from encoders.options import OneOf
from encoders.registry import declared, describe, find, load
from encoders.spec import FramePolicy

WRONG = ("0", "-1", "nan", "inf", "1e400", "some", "")
NAMES = [name for name in (*ENCODERS, *TRANSCRIBERS) if not name.startswith("toy")]
PUBLISHED = [
    (name, publish)
    for name in NAMES
    for publish in ("states", "inputs")
    if publish == "states" or find(name).inputs
]


def base_of(name, publish, option=""):
    """Options without which an encoder is refused, but for the one that is asked about."""
    spec = find(name)
    sizes = {"dim": 32, "depth": 2} if spec.own_weights and not spec.dim else {}
    needed = {"weights": "hf://a/b@c", **sizes} if spec.own_weights else {}
    needed |= {"publish": "inputs"} if publish == "inputs" else {}
    taken = declared(spec, publish)
    return [f"{key}={value}" for key, value in needed.items() if key in taken and key != option]


def legitimate(name, publish, option):
    """The values out of `WRONG` that mean something."""
    spec = find(name)
    own = spec.own_weights
    return {
        "depth": {"0"} if spec.dim else set(),
        "dim": {"0"} if spec.dim else set(),
        "layers": {"0", "-1"} if publish == "states" else set(),
        "loud": {"0"},
        "prompt": set(WRONG),
        "px": {"0"} if publish == "states" else set(),
        "weights": set() if own else {""},
    }.get(option, set())


CASES = [
    (name, publish, option)
    for name, publish in PUBLISHED
    for option in (*declared(find(name), publish), *(["preset"] if find(name).presets else []))
]


class TestEveryOptionOfEveryEncoder:
    @pytest.mark.parametrize(("name", "publish", "option"), CASES)
    def test_is_refused_in_one_line_with_a_value_that_means_nothing(self, name, publish, option):
        for value in WRONG:
            typed = [*base_of(name, publish, option), f"{option}={value}"]
            text = f"{name}:{','.join(typed)}"
            if value in legitimate(name, publish, option):
                descriptor = describe(text)
                json.dumps(descriptor.facts(), allow_nan=False)
                continue
            with pytest.raises(ConfigError) as told:
                describe(text)
            assert "\n" not in str(told.value)
            assert name in str(told.value)
            assert option in str(told.value)

    @pytest.mark.parametrize(("name", "publish", "option"), CASES)
    def test_is_refused_twice_whichever_comes_last(self, name, publish, option):
        with pytest.raises(ConfigError, match=f"expected {option} once, came a and b; leave one"):
            describe(f"{name}:{option}=a,{option}=b")

    @pytest.mark.parametrize(("name", "publish"), PUBLISHED)
    def test_may_be_typed_as_it_is_by_default(self, name, publish):
        for option, each in declared(find(name), publish).items():
            assert each.read(str(each.default), option, name) == each.default

    @pytest.mark.parametrize(
        ("name", "option"), [(name, o) for name in NAMES for o in declared(find(name), "states")]
    )
    def test_without_a_value_is_told_what_may_stand_there(self, name, option):
        with pytest.raises(AffuseError, match=f"{option} has no value; type {option}="):
            describe(f"{name}:{','.join([*base_of(name, 'states', option), option])}")

    def test_that_a_description_lets_through_no_wrapper_refuses(self, encoder_name, case_of):
        spec = find(encoder_name)
        for option, each in spec.options.items():
            for value in each.known if isinstance(each, OneOf) else ():
                load(*case_of(encoder_name, f"{option}={value}"))


class TestValues:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("clip_vit:crop=fac", "crop is one of none, face; came 'fac'; did you mean 'face'?"),
            ("minilm:context=future", "context is one of none, past, both; came 'future'"),
            ("minilm:pool=mean_stdd", "did you mean 'mean_std'?"),
            ("clip_vit:fps=nan", "fps=nan; expected a number from 0.001 to 1000, by default 2"),
            ("timesformer:frames=0", "expected a whole number from 1 to 512, by default 8"),
            ("face_hog:median_removed=1", "median_removed is true or false; came '1'"),
            ("sensevoice_asr:language=de,weights=hf://a/b@c", "one of auto, zh, en, yue, ja, ko"),
            ("minilm:poll=mean", "there is no option 'poll'; did you mean 'pool'"),
        ],
    )
    def test_are_answered_with_what_is_expected(self, text, said):
        with pytest.raises(ConfigError) as told:
            describe(text)
        assert said in str(told.value)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("bert_base:dim=32", "dim=32, and the pinned weights have 768; type dim=768"),
            ("bert_base:depth=6", "the pinned weights have 12"),
            ("timesformer:frames=5", "the pinned weights have 8; type frames=8"),
            ("hub_audio:preset=wavlm_large,depth=12", "the pinned weights have 24"),
            ("hub_whisper:preset=large_v3,publish=inputs,mels=80", "have 128; type mels=128"),
            ("hub_video:preset=vjepa2_large,policy=fps", "type policy=even or policy=windows"),
            ("timesformer:policy=fps", "policy is one of even, windows"),
        ],
    )
    def test_that_pinned_weights_do_not_have_are_refused(self, text, said):
        with pytest.raises(ConfigError, match=said):
            describe(text)

    @pytest.mark.parametrize("text", ["bert_base:dim=768,depth=12", "timesformer:frames=8"])
    def test_that_they_have_may_be_typed(self, text):
        assert describe(text).layer_dim == 768

    @pytest.mark.parametrize(
        ("uri", "said"),
        [
            ("hf://owner/name", "expected hf://owner/name@revision"),
            ("package://dist/file", "expected package://dist==version/path/inside"),
        ],
    )
    def test_of_weights_that_no_store_finds_are_refused(self, uri, said):
        with pytest.raises(AffuseError, match=said):
            describe(f"bert_base:weights={uri}")

    def test_of_a_language_are_those_of_whisper(self):
        whisper = pytest.importorskip("transformers.models.whisper.tokenization_whisper")
        assert LANGUAGES.split() == list(whisper.LANGUAGES)


FINGERPRINTS = {
    "afx_egemaps:kind=lld": "42944161a03b",
    "clip_vit:crop=face": "509bd58be2a2",
    "egemaps": "76d0d24a672e",
    "emotieffnet:weights=hf://a/b@c,dim=1408": "1a6740ae8045",
    "face_hog:fps=3": "cb3f94286fb3",
    "hub_embedding:preset=qwen3_0_6b": "d0eb43c7d4d5",
    "hub_video:preset=vjepa2_large,publish=inputs": "b6e72c8c27b8",
    "hub_whisper:preset=large_v3,publish=inputs": "e96e18b225df",
    "timesformer": "777750dd33d2",
    "wavlm_base:loud=30": "b75eeb464fdc",
    "whisper_small_asr:language=de": "f4bb0507c6c6",
    "whisper_tiny_en:layers=all,pool=mean_std": "fba2530b980d",
}


@pytest.mark.parametrize(("text", "fingerprint"), FINGERPRINTS.items())
def test_tables_that_are_there_keep_their_name(text, fingerprint):
    assert describe(text).fingerprint == fingerprint


def test_a_policy_that_nobody_knows_is_no_other_one():
    timeline = Timeline(ticks=[0, 1, 2], keys={0: 0}, tick_s=0.1, zero_s=0.0)
    policy = FramePolicy(kind="windows")
    object.__setattr__(policy, "kind", "some")
    with pytest.raises(AssertionError):
        choose(policy, timeline, 10)
