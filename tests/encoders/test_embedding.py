"""One vector a text: what stands beside or behind it changes nothing."""

import dataclasses

import numpy as np
import pytest
import torch

from cluster.errors import ConfigError
from encoders.registry import describe, load


@pytest.fixture
def loaded(case_of):
    return lambda options="": load(*case_of("hub_embedding", options))


@pytest.fixture
def clips(case_of, clips_for):
    return clips_for(case_of("hub_embedding")[0])


def with_text(clip, text):
    return dataclasses.replace(clip, text=text)


class TestPadding:
    @pytest.mark.parametrize("side", ["left", "right"])
    @pytest.mark.parametrize("pooling", ["first", "last", "mean"])
    @torch.inference_mode()
    def test_of_the_library_on_either_side_gives_the_same_vectors(
        self, case_of, clips, side, pooling
    ):
        from transformers import AutoModel, AutoTokenizer

        descriptor, paths = case_of("hub_embedding", f"pooling={pooling}")
        tokenizer = AutoTokenizer.from_pretrained(paths["model"], padding_side=side)
        batch = tokenizer([clip.text for clip in clips], padding=True, return_tensors="pt")
        mask = batch["attention_mask"]
        assert not mask.all()
        model = AutoModel.from_pretrained(paths["model"]).eval()
        places = (mask.cumsum(1) - 1).clamp(min=0)
        states = model(
            input_ids=batch["input_ids"], attention_mask=mask, position_ids=places
        ).last_hidden_state
        pick = {"first": lambda x: x[0], "last": lambda x: x[-1], "mean": lambda x: x.mean(0)}
        for row, own, encoded in zip(
            states, mask.bool(), load(descriptor, paths).encode(clips), strict=True
        ):
            assert encoded.values.shape == (1, 32)
            np.testing.assert_allclose(encoded.values[0], pick[pooling](row[own]), atol=2e-5)


class TestPrompt:
    def test_stands_before_the_text_with_its_new_lines(self, loaded, clips):
        written = [with_text(clip, "Instruct: mood\nQuery:" + clip.text) for clip in clips]
        prompted = loaded("prompt=Instruct: mood\\nQuery:").encode(clips)
        for one, other in zip(prompted, loaded().encode(written), strict=True):
            np.testing.assert_array_equal(one.values, other.values)

    def test_is_no_text_by_itself(self, loaded, clips):
        (encoded,) = loaded("prompt=mood").encode([with_text(clips[0], "  ")])
        assert not encoded.valid.any()

    def test_that_leaves_no_room_is_refused(self, loaded):
        with pytest.raises(ConfigError, match=r"at most 5 tokens.*the model reads 62"):
            loaded("max_tokens=5,prompt=what a day")


class TestLongTexts:
    def test_are_cut_and_say_so_and_still_end_as_the_model_was_trained(self, loaded, clips):
        long = with_text(clips[0], " ".join(["so funny what a day"] * 30))
        encoder = loaded()
        cut, whole = encoder.encode([long, clips[1]])
        assert cut.partial == "text cut at 62 tokens"
        assert whole.partial is None
        ids, _ = encoder._tokens(long.text)
        assert len(ids) == 62
        assert ids[-1] == 0  # the end of text
        (shorter,) = loaded("max_tokens=20").encode([long])
        assert shorter.partial == "text cut at 20 tokens"
        assert np.abs(shorter.values - cut.values).max() > 1e-3


def test_an_encoder_without_a_table_of_positions_is_read(case_of, clips, tmp_path):
    from transformers import AutoTokenizer, T5Config, T5Model

    _, paths = case_of("hub_embedding")
    AutoTokenizer.from_pretrained(paths["model"]).save_pretrained(tmp_path)
    config = T5Config(vocab_size=400, d_model=32, num_layers=2, num_heads=4, d_kv=8, d_ff=48)
    T5Model(config).save_pretrained(tmp_path)
    text = f"hub_embedding:weights=file://{tmp_path},dim=32,depth=2,pooling=mean"
    encoder = load(describe(text), {"model": tmp_path})
    for clip, together in zip(clips, encoder.encode(clips), strict=True):
        np.testing.assert_allclose(together.values, encoder.encode([clip])[0].values, atol=1e-4)
