"""A text is cut where its model has no more positions, and not before; the message says at which token."""

import shutil

import numpy as np
import pytest
import torch

from encoders.registry import describe, load
from encoders.spec import Clip

FAMILIES = ("bart_large", "bert_base", "roberta_base", "xlm_roberta_base")


def clip(count, context=((), ())):
    return Clip(clip_id=1, duration_s=1.0, text=" ".join(["word"] * count), context=context)


@pytest.mark.weights
class TestMiniLM:
    @pytest.fixture(scope="class")
    def paths(self, mirrored):
        return mirrored(describe("minilm").weights)

    @torch.inference_mode()
    def test_gives_what_the_library_gives_of_texts_about_as_long_as_it_reads(self, paths):
        from transformers import AutoModel, AutoTokenizer

        folder = paths["model"].parent
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModel.from_pretrained(folder).eval()
        encoder = load(describe("minilm"), paths)
        for count in (20, *range(505, 516)):
            text = clip(count)
            ids = tokenizer(text.text, truncation=True, max_length=512, return_tensors="pt")
            assert ids["input_ids"].shape[1] == min(count + 2, 512)
            (own,) = encoder.encode([text])
            expected = model(**ids).last_hidden_state[0].numpy()
            np.testing.assert_allclose(own.values, expected, atol=2e-5)
            assert own.partial == ("text cut at 510 tokens" if count > 510 else None)

    @pytest.mark.parametrize("context", ["past", "both"])
    def test_reads_neighbours_in_the_room_that_is_left(self, paths, context):
        around = (("before " * 600,), ("after " * 600,))
        encoder = load(describe(f"minilm:context={context}"), paths)
        for count in (1, 400, *range(505, 516)):
            tokens = encoder._tokens(clip(count, around))
            assert len(tokens.ids) <= 512
            assert len(tokens.kept) == min(count, 510) + 2
        # [CLS] past [SEP] text [SEP], and a future with its own [SEP]
        assert len(encoder._tokens(clip(400, around)).ids) == (512 if context == "both" else 511)


@pytest.mark.parametrize("publish", ["states", "inputs"])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_room_is_that_of_the_models_positions_where_the_tokenizer_says_none(
    name, publish, case_of, tmp_path
):
    from transformers import AutoModel, AutoTokenizer

    _, paths = case_of(name)
    folder = tmp_path / "model"
    shutil.copytree(paths["model"], folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.model_max_length = 10**30
    tokenizer.save_pretrained(folder)
    text = f"{name}:weights=file://{folder},dim=32,depth=2,publish={publish}"
    descriptor = describe(text)
    encoder = load(descriptor, {"model": folder})
    (own,) = encoder.encode([clip(200)])
    longest = len(own.values)
    assert own.partial == f"text cut at {longest - 2} tokens"
    model = AutoModel.from_pretrained(folder).eval()
    model = model.get_encoder() if model.config.is_encoder_decoder else model
    with torch.inference_mode():
        model(input_ids=torch.full((1, longest), 5))
        with pytest.raises((IndexError, RuntimeError), match=r"out of|size"):
            model(input_ids=torch.full((1, longest + 1), 5))
