"""Encoders of any model of the hub: every family by its real class, presets, and what is refused."""

import dataclasses
import re

import numpy as np
import pytest
import tiny_models
import torch

from cluster.errors import ConfigError
from encoders import ENCODERS, store
from encoders.registry import defaults, describe, find, load, load_branch
from encoders.spec import Frames

SIZE = "dim=32,depth=2"
PICTURES = (
    "clip_vit",
    "dinov2",
    "dinov3",
    "siglip",
    "siglip2_naflex",
    "siglip_with_sentences",
    "vit",
)
FILMS = {"timesformer": 8, "videomae": 16, "vjepa2": 8}
SOUNDS = (
    "data2vec_audio",
    "hubert",
    "wav2vec2",
    "wav2vec2_conformer",
    "wav2vec2_layer_norm",
    "wavlm",
)
CASES = [
    *(("hub_video", family, "") for family in PICTURES),
    *(("hub_video", family, f"policy=even,frames={count}") for family, count in FILMS.items()),
    ("hub_video", "vjepa2", "policy=windows,frames=4"),
    *(("hub_audio", family, "") for family in SOUNDS),
    ("hub_whisper", "whisper", ""),
]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    root = tmp_path_factory.mktemp("families")

    def make(family):
        folder = root / family
        if not folder.exists():
            folder.mkdir()
            getattr(tiny_models, family)(folder)
        return folder

    return make


@pytest.fixture
def loaded(folder_of):
    def make(name, family, options=""):
        text = ",".join(filter(None, [f"weights=file://{folder_of(family)}", SIZE, options]))
        descriptor = describe(f"{name}:{text}")
        return descriptor, load(descriptor, store.local_paths(descriptor.weights, "/nowhere"))

    return make


def squares(clip):
    """The same clip with frames of the size that the tiny models read."""
    frames = {
        policy: Frames(each.pixels[:, 8:40, 16:48], each.times_s)
        for policy, each in clip.frames.items()
    }
    return dataclasses.replace(clip, frames=frames)


class TestEveryFamily:
    @pytest.mark.parametrize(("name", "family", "options"), CASES)
    def test_gives_steps_of_its_width_whatever_stands_beside_a_clip(
        self, loaded, clips_for, name, family, options
    ):
        descriptor, encoder = loaded(name, family, options)
        clips = clips_for(descriptor, (0.7, 2.3, 1.1))
        for clip, together in zip(clips, encoder.encode(clips), strict=True):
            (alone,) = encoder.encode([clip])
            assert together.values.shape[1] == descriptor.dim == 32
            assert together.values.std() > 0
            np.testing.assert_allclose(together.values, alone.values, atol=2e-5, rtol=1e-4)

    @pytest.mark.parametrize(("name", "family", "options"), CASES)
    def test_has_every_layer(self, loaded, clips_for, name, family, options):
        descriptor, encoder = loaded(name, family, ",".join(filter(None, [options, "layers=all"])))
        (encoded,) = encoder.encode(clips_for(descriptor, (1.1,)))
        parts = np.split(encoded.values, 3, axis=1)
        assert all(np.abs(parts[i] - parts[j]).max() > 1e-3 for i, j in ((0, 1), (1, 2)))


class TestTrained:
    """Every family of vision models as a branch of a net."""

    @pytest.mark.parametrize(
        ("family", "options"), [case[1:] for case in CASES if case[0] == "hub_video"]
    )
    def test_says_of_published_pictures_what_the_encoder_says(
        self, loaded, clips_for, family, options
    ):
        plain, encoder = loaded("hub_video", family, options)
        more = ",".join(filter(None, [options, "publish=inputs,px=32"]))
        descriptor, publisher = loaded("hub_video", family, more)
        weights = store.local_paths(descriptor.weights, "/nowhere")
        branch = load_branch(descriptor, weights).eval()
        for seconds in (0.7, 2.3):
            (expected,) = encoder.encode(clips_for(plain, (seconds,)))
            (given,) = publisher.encode(clips_for(descriptor, (seconds,)))
            assert given.values.dtype == np.uint8
            values, mask = torch.from_numpy(given.values).float(), torch.from_numpy(given.valid)
            states, said = branch(values[None], mask[None])
            np.testing.assert_allclose(states[said].detach(), expected.values, atol=1e-4, rtol=1e-3)
        levels = {branch.level(name) for name, _ in branch.named_parameters()}
        assert levels - {None} == {0, 1, 2}

    def test_the_batch_norm_of_a_conformer_keeps_its_statistics(self, loaded, clips_for):
        plain, encoder = loaded("hub_audio", "wav2vec2_conformer")
        descriptor, publisher = loaded("hub_audio", "wav2vec2_conformer", "publish=inputs")
        branch = load_branch(descriptor, store.local_paths(descriptor.weights, "/nowhere"))
        (expected,) = encoder.encode(clips_for(plain, (1.1,)))
        (given,) = publisher.encode(clips_for(descriptor, (1.1,)))
        values, mask = torch.from_numpy(given.values), torch.from_numpy(given.valid)
        for _ in range(2):
            branch.train()(values[None], mask[None])
        assert sum("running_mean" in name for name, _ in branch.named_buffers()) == 2
        states, said = branch.eval()(values[None], mask[None])
        np.testing.assert_allclose(states[said].detach(), expected.values, atol=1e-4, rtol=1e-3)

    def test_a_size_that_the_model_does_not_read_is_refused_before_anything_is_published(
        self, loaded
    ):
        with pytest.raises(ConfigError, match=r"does not read pictures of 224 px.*type px=32"):
            loaded("hub_video", "clip_vit", "publish=inputs")

    def test_so_are_single_frames_of_a_film_model(self, loaded):
        with pytest.raises(ConfigError, match="reads 8 frames at once; type frames=8"):
            loaded("hub_video", "timesformer", "publish=inputs,px=32")

    def test_a_run_of_pictures_sees_nothing_where_one_is_not_valid(self, loaded, clips_for):
        options = "policy=even,frames=8,publish=inputs,px=32"
        descriptor, publisher = loaded("hub_video", "timesformer", options)
        branch = load_branch(descriptor, store.local_paths(descriptor.weights, "/nowhere")).eval()
        (given,) = publisher.encode(clips_for(descriptor, (1.1,)))
        values = torch.from_numpy(given.values).float()[None]
        mask = torch.arange(8)[None] != 3
        states, said = branch(values, mask)
        other = values.clone()
        other[0, 3] = torch.nan
        torch.testing.assert_close(states, branch(other, mask)[0])
        assert said.tolist() == [[True]]
        assert not torch.allclose(states, branch(values, mask | True)[0])

    def test_at_most_so_many_pictures_a_clip_and_runs_whole(self):
        words = "hub_video:preset=clip_large,publish=inputs"
        assert describe(words).frame_policy.max_frames == 16
        assert describe(f"{words},most=4").frame_policy.max_frames == 4
        assert describe("videomae:publish=inputs,most=4").frame_policy.max_frames == 16
        assert describe(words).dim == 3 * 224 * 224
        assert describe(words).dtype == "uint8"
        assert "most" not in describe("hub_video:preset=clip_large").options
        with pytest.raises(
            ConfigError, match="px=0; expected a whole number from 1 to 4096, by default 224"
        ):
            describe(f"{words},px=0")


class TestBandsOfAWhisper:
    def test_are_those_of_its_preset_where_inputs_are_published(self):
        plain = describe("hub_whisper:preset=large_v3")
        assert "mels" not in plain.options
        assert describe("hub_whisper:preset=large_v3,publish=inputs").dim == 2 * 128

    def test_are_refused_where_they_are_not_those_of_the_weights(self, loaded):
        with pytest.raises(ConfigError, match="read 80 mel bands, expected 128; type mels=80"):
            loaded("hub_whisper", "whisper", "publish=inputs,mels=128")


class TestAgainstTheLibrary:
    @torch.inference_mode()
    def test_naflex_reads_the_patches_that_its_processor_cuts(self, loaded, folder_of, clips_for):
        from transformers import Siglip2ImageProcessor, Siglip2VisionModel

        descriptor, encoder = loaded("hub_video", "siglip2_naflex")
        (clip,) = map(squares, clips_for(descriptor, (1.1,)))
        pixels = clip.frames[descriptor.frame_policy].pixels
        process = Siglip2ImageProcessor(
            patch_size=8, max_num_patches=16, image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.3, 0.25]
        )
        inputs = process(list(pixels), input_data_format="channels_last", return_tensors="pt")
        model = Siglip2VisionModel.from_pretrained(folder_of("siglip2_naflex")).eval()
        expected = model(**inputs).last_hidden_state.mean(1).numpy()
        np.testing.assert_allclose(encoder.encode([clip])[0].values, expected, atol=1e-5)

    @torch.inference_mode()
    def test_a_film_model_without_its_guesser_equals_the_whole_one(
        self, loaded, folder_of, clips_for
    ):
        from transformers import AutoModel

        descriptor, encoder = loaded("hub_video", "vjepa2", "policy=even,frames=8")
        (clip,) = map(squares, clips_for(descriptor, (1.1,)))
        pixels = clip.frames[descriptor.frame_policy].pixels
        scaled = (pixels / np.float32(255) - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.25]
        inputs = torch.from_numpy(scaled).permute(0, 3, 1, 2)[None].float()
        whole = AutoModel.from_pretrained(folder_of("vjepa2")).eval()(pixel_values_videos=inputs)
        expected = whole.last_hidden_state.mean(1).numpy()
        np.testing.assert_allclose(encoder.encode([clip])[0].values, expected, atol=1e-5)

    def test_half_of_two_says_the_same_as_alone(self, loaded, folder_of, clips_for):
        from transformers import SiglipModel

        _, encoder = loaded("hub_video", "siglip_with_sentences")
        whole = SiglipModel.from_pretrained(folder_of("siglip_with_sentences")).vision_model
        own = encoder._tower.model.state_dict()
        assert all(torch.equal(own[name], value) for name, value in whole.state_dict().items())


class TestSize:
    def test_another_size_is_read_where_positions_stretch(self, loaded, clips_for):
        descriptor, encoder = loaded("hub_video", "dinov2", "px=48")
        (encoded,) = encoder.encode(clips_for(descriptor, (1.1,)))
        assert np.isfinite(encoded.values).all()
        assert descriptor.frame_policy.size == 256
        assert describe("hub_video:preset=clip_large,px=336").frame_policy.size == 336

    def test_and_refused_with_the_own_one_where_they_do_not(self, loaded):
        with pytest.raises(ConfigError, match=r"does not read pictures of 48 px.*type px=32"):
            loaded("hub_video", "clip_vit", "px=48")

    def test_a_film_model_is_not_read_by_single_frames(self, loaded):
        with pytest.raises(ConfigError, match="reads 8 frames at once; type frames=8"):
            loaded("hub_video", "timesformer")
        with pytest.raises(ConfigError, match="reads 8 frames at once; type frames=8"):
            loaded("hub_video", "vjepa2", "policy=even,frames=5")


PRESETS = [(name, key) for name in ENCODERS for key in find(name).presets]


class TestPresets:
    def test_are_pinned_and_name_their_licence(self):
        assert len(PRESETS) == 9
        for name, key in PRESETS:
            (weights, *_) = describe(f"{name}:preset={key}").weights
            owner, at, revision = weights.uri.removeprefix("hf://").partition("@")
            assert at == "@"
            assert owner.count("/") == 1
            assert re.fullmatch("[0-9a-f]{40}", revision)
            assert weights.licence not in ("", "the user's own")
            assert weights.size_mb > 0

    @pytest.mark.parametrize("publish", ["states", "inputs"])
    @pytest.mark.parametrize(("name", "key"), PRESETS)
    def test_mean_what_is_written_out(self, name, key, publish):
        spec = find(name)
        if publish == "inputs" and spec.inputs is None:
            return
        short = describe(f"{name}:preset={key},publish={publish}")
        found = spec.presets[key]
        assert found.options.keys() <= defaults(spec, "inputs").keys()
        options = {**found.options, **(found.inputs if publish == "inputs" else {})}
        known = {k: v for k, v in options.items() if k in defaults(spec, publish)}
        written = {**known, "weights": found.weights.uri, "publish": publish}
        long = describe(f"{name}:" + ",".join(f"{k}={v}" for k, v in written.items()))
        assert short == long
        assert short.fingerprint == long.fingerprint
        assert "preset" not in short.options

    def test_of_another_side_publish_pictures_of_it_unless_one_is_typed(self):
        name = "hub_video:preset=vjepa2_large"
        assert describe(f"{name},publish=inputs").dim == 3 * 256 * 256
        assert describe(f"{name},publish=inputs,px=224").dim == 3 * 224 * 224
        assert describe(name).options["px"] == 0
        assert describe("hub_video:preset=clip_large,publish=inputs").dim == 3 * 224 * 224

    def test_give_way_to_what_is_written_beside_them(self):
        own = describe("hub_audio:weights=hf://me/mine@main,preset=wavlm_large,layers=12")
        assert own.weights[0].uri == "hf://me/mine@main"
        assert own.layer_dim == 1024
        assert own.layers == (12,)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("hub_audio:preset=wavlm_larg", "did you mean 'wavlm_large'"),
            ("hub_audio:preset=", "there is no preset ''"),
            ("hub_audio:preset=wavlm_large,preset=hubert_large", "expected preset once, came"),
            ("hub_audio:", "or preset=hubert_large|wavlm_large"),
            ("bert_base:preset=x", "there is no option 'preset'"),
        ],
    )
    def test_that_do_not_exist_are_refused(self, text, said):
        with pytest.raises(ConfigError, match=re.escape(said)):
            describe(text)
