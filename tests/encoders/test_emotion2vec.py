"""emotion2vec: the names of its checkpoint, and the arithmetic of the original one number at a time."""

import contextlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from cluster.errors import WeightsError
from encoders.audio._emotion2vec_net import Emotion2vecNet, Sizes, slopes
from encoders.registry import load

AUDIO = "d2v_model.modality_encoders.AUDIO."


def published_shapes(dim):
    """Every parameter of the published large model, by name."""
    found = {"proj.weight": (9, dim), "proj.bias": (9,)}
    blocks = [f"d2v_model.blocks.{i}" for i in range(8)]
    blocks += [f"{AUDIO}context_encoder.blocks.{i}" for i in range(4)]
    for block in blocks:
        for name, outs, ins in (
            ("attn.qkv", 3 * dim, dim),
            ("attn.proj", dim, dim),
            ("mlp.fc1", 4 * dim, dim),
            ("mlp.fc2", dim, 4 * dim),
        ):
            found |= {f"{block}.{name}.weight": (outs, ins), f"{block}.{name}.bias": (outs,)}
        for name in ("norm1", "norm2"):
            found |= {f"{block}.{name}.weight": (dim,), f"{block}.{name}.bias": (dim,)}
    for index, kernel in enumerate((10, 3, 3, 3, 3, 2, 2)):
        layer = f"{AUDIO}local_encoder.conv_layers.{index}"
        found[f"{layer}.0.weight"] = (512, 512 if index else 1, kernel)
        found |= {f"{layer}.2.1.weight": (512,), f"{layer}.2.1.bias": (512,)}
    for index in range(1, 6):
        layer = f"{AUDIO}relative_positional_encoder.{index}.0"
        found |= {f"{layer}.weight": (dim, dim // 16, 19), f"{layer}.bias": (dim,)}
    for name, shape in (("1", (512,)), ("2", (dim, 512))):
        layer = f"{AUDIO}project_features.{name}"
        found |= {f"{layer}.weight": shape, f"{layer}.bias": shape[:1]}
    for part in ("weight", "bias"):
        found[f"{AUDIO}context_encoder.norm.{part}"] = (dim,)
    return found | {f"{AUDIO}extra_tokens": (1, 10, dim), f"{AUDIO}alibi_scale": (1, 1, 16, 1, 1)}


def test_the_parameters_are_those_of_the_published_checkpoint():
    with torch.device("meta"):
        net = Emotion2vecNet(Sizes(dim=1024, heads=16, hidden=4096))
    own = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    published = published_shapes(1024)
    assert len(published) == 185
    assert own == {name.removeprefix("d2v_model."): shape for name, shape in published.items()}


def test_slopes_of_heads_that_are_no_power_of_two():
    halves = [2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5]
    assert slopes(12) == pytest.approx([2.0**-k for k in range(1, 9)] + halves)


def norm(x, weights=None, name=""):
    scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return (
        scaled if weights is None else scaled * weights[name + ".weight"] + weights[name + ".bias"]
    )


def gelu(x):
    return torch.nn.functional.gelu(torch.from_numpy(x)).numpy()


def dense(x, weights, name):
    return x @ weights[name + ".weight"].T + weights[name + ".bias"]


def direct(weights, samples):
    """States of one clip and its nine probabilities, as the original reads them, with loops."""
    x = ((samples - samples.mean()) / np.sqrt(samples.var() + 1e-5))[:, None]
    for index, stride in enumerate((5, 2, 2, 2, 2, 2, 2)):
        layer = f"{AUDIO}local_encoder.conv_layers.{index}"
        kernel = weights[layer + ".0.weight"]
        starts = range(0, len(x) - kernel.shape[2] + 1, stride)
        x = np.stack([np.einsum("ki,oik->o", x[s : s + kernel.shape[2]], kernel) for s in starts])
        x = gelu(norm(x, weights, layer + ".2.1"))
    x = dense(norm(x, weights, AUDIO + "project_features.1"), weights, AUDIO + "project_features.2")
    place, time = x, len(x)
    for index in (1, 2):
        layer = f"{AUDIO}relative_positional_encoder.{index}.0"
        kernel, wide = weights[layer + ".weight"], np.pad(place, ((2, 2), (0, 0)))
        out = np.zeros_like(place)
        for t in range(time):
            for o in range(32):
                group = slice(o // 8 * 8, o // 8 * 8 + 8)
                out[t, o] = (wide[t : t + 5, group].T * kernel[o]).sum()
        place = gelu(norm(out + weights[layer + ".bias"]))
    x = np.concatenate([weights[AUDIO + "extra_tokens"][0], x + place])
    x = norm(x, weights, AUDIO + "context_encoder.norm")
    scale = weights[AUDIO + "alibi_scale"].clip(0).ravel()
    for block in (AUDIO + "context_encoder.blocks.0", "d2v_model.blocks.0"):
        query, key, value = np.split(dense(x, weights, block + ".attn.qkv"), 3, axis=1)
        mixed = np.zeros_like(x)
        for head in range(4):
            part = slice(8 * head, 8 * head + 8)
            scores = query[:, part] @ key[:, part].T / np.sqrt(8)
            for one in range(3, len(x)):
                for other in range(3, len(x)):
                    scores[one, other] -= scale[head] * 4.0 ** -(head + 1) * abs(one - other)
            shares = np.exp(scores - scores.max(1, keepdims=True))
            mixed[:, part] = shares / shares.sum(1, keepdims=True) @ value[:, part]
        x = norm(x + dense(mixed, weights, block + ".attn.proj"), weights, block + ".norm1")
        half = gelu(dense(x, weights, block + ".mlp.fc1"))
        x = norm(x + dense(half, weights, block + ".mlp.fc2"), weights, block + ".norm2")
    logits = dense(x[3:].mean(0), weights, "proj")
    return x[3:], np.exp(logits) / np.exp(logits).sum()


@pytest.fixture
def case(case_of):
    return case_of("emotion2vec")


def checkpoint(case):
    return torch.load(case[1]["model"] / "model.pt", weights_only=False)["model"]


class TestAgainstTheOriginal:
    def test_states_and_probabilities_are_those_of_a_slow_direct_computation(self, case, clips_for):
        weights = {name: value.double().numpy() for name, value in checkpoint(case).items()}
        clips = clips_for(case[0], (0.3, 0.5, 0.32))
        for clip, encoded in zip(clips, load(*case).encode(clips), strict=True):
            samples = clip.waveforms[16000].astype(np.float64)
            states, shares = direct(weights, samples)
            np.testing.assert_allclose(encoded.values, states, atol=1e-4)
            np.testing.assert_allclose(
                encoded.side["emotion"], np.tile(shares, (len(states), 1)), atol=1e-5
            )


class TestCheckpoints:
    def load_with(self, case, folder):
        return load(case[0], {"model": folder})

    def test_as_safetensors_say_the_same(self, case, clips_for, tmp_path):
        from safetensors.torch import save_file

        save_file(checkpoint(case), tmp_path / "model.safetensors")
        clips = clips_for(case[0], (0.5,))
        (one,), (other,) = (
            load(*case).encode(clips),
            self.load_with(case, tmp_path).encode(clips),
        )
        np.testing.assert_array_equal(one.values, other.values)
        np.testing.assert_array_equal(one.side["emotion"], other.side["emotion"])

    @pytest.mark.parametrize("function", [open, os.mkdir, Path.touch])
    def test_run_nothing_that_they_name(self, case, tmp_path, function):
        """A torch file may name any function; none of this one's is called."""
        made = tmp_path / "made"
        given = (made,) if function is Path.touch else (str(made), *(["w"] * (function is open)))

        class Attack:
            def __reduce__(self):
                return function, given

        torch.save({"cfg": Attack(), "model": checkpoint(case)}, tmp_path / "model.pt")
        with contextlib.suppress(WeightsError):
            self.load_with(case, tmp_path)
        assert not made.exists()

    @pytest.mark.parametrize("change", ["lost", "other", "classes", "none", "rubbish", "pickle"])
    def test_that_are_others_are_refused_in_one_line(self, case, tmp_path, change):
        states = checkpoint(case)
        if change == "lost":
            del states["d2v_model.blocks.0.norm2.bias"]
        elif change == "other":
            states["d2v_model.norm.weight"] = torch.zeros(32)
        elif change == "classes":
            states |= {"proj.weight": torch.zeros(4, 32), "proj.bias": torch.zeros(4)}
        elif change == "none":
            states = [1, 2]
        torch.save({"model": states}, tmp_path / "model.pt")
        if change == "rubbish":
            (tmp_path / "model.pt").write_bytes(b"no model")
        elif change == "pickle":
            (tmp_path / "model.pt").write_bytes(pickle.dumps({"a": 1}))
        with pytest.raises(
            WeightsError, match=r"is no emotion2vec\+|cannot be read as tensors"
        ) as told:
            self.load_with(case, tmp_path)
        assert "\n" not in str(told.value)

    def test_that_are_not_there_are_named(self, case, tmp_path):
        with pytest.raises(
            WeightsError, match=r"no checkpoint; expected model.safetensors or model.pt"
        ):
            self.load_with(case, tmp_path)
