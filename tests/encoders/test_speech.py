"""Speech transformers whose first layer normalises over time never see padding."""

import numpy as np
import pytest
import torch

from encoders.registry import load

BASE = ("hubert_base", "wav2vec2_base", "wavlm_base")


@pytest.fixture(params=BASE)
def case(request, case_of):
    return case_of(request.param)


def real_class(paths):
    from transformers import AutoModel

    return AutoModel.from_pretrained(paths["model"], local_files_only=True).eval()


class TestGroupNorm:
    def test_the_base_models_are_of_that_kind(self, case):
        assert real_class(case[1]).config.feat_extract_norm == "group"

    def test_padding_would_change_them_which_is_why_lengths_are_not_mixed(self, case, clips_for):
        short, long = (clip.waveforms[16000] for clip in clips_for(case[0], (0.7, 2.3)))
        model = real_class(case[1])
        beside = torch.zeros(2, len(long))
        beside[0, : len(short)], beside[1] = torch.from_numpy(short), torch.from_numpy(long)
        with torch.inference_mode():
            alone = model(torch.from_numpy(short)[None]).last_hidden_state[0]
            padded = model(beside).last_hidden_state[0, : len(alone)]
        assert float((alone - padded).abs().max()) > 0.01

    def test_a_clip_says_the_same_alone_and_beside_longer_shorter_and_equal_ones(
        self, case, clips_for
    ):
        encoder = load(*case)
        clips = clips_for(case[0], (0.7, 2.3, 1.1, 2.3, 0.7, 2.2999))
        for clip, together in zip(clips, encoder.encode(clips), strict=True):
            (alone,) = encoder.encode([clip])
            np.testing.assert_allclose(together.values, alone.values, atol=2e-5, rtol=1e-4)
