"""EmotiEffNet: the parameters that are published, the numbers that timm gives with them, what is refused."""

import contextlib
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cluster.errors import ConfigError, WeightsError
from encoders.registry import describe, load, load_branch
from encoders.spec import Frames
from encoders.video import _emotieffnet
from encoders.video._efficientnet import EfficientNet
from encoders.video._face import Face, FaceFinder

KERNELS = (3, 3, 5, 3, 5, 5, 3)
B0 = (1280, (1, 2, 2, 3, 3, 4, 1), (32, 16, 24, 40, 80, 112, 192, 320))
B2 = (1408, (2, 3, 3, 4, 4, 5, 2), (32, 16, 24, 48, 88, 120, 208, 352))


def published(dim, repeats, widths, outputs):
    """Every parameter of an EfficientNet as timm names it: name -> shape."""
    found, norms = {"conv_stem.weight": (32, 3, 3, 3)}, {"bn1": 32, "bn2": dim}
    for stage, (times, kernel) in enumerate(zip(repeats, KERNELS, strict=True)):
        for index in range(times):
            ins, outs = widths[stage + min(index, 1)], widths[stage + 1]
            inside = 6 * ins if stage else ins
            block, reduced = f"blocks.{stage}.{index}.", ins // 4
            found[block + "conv_dw.weight"] = (inside, 1, kernel, kernel)
            found[block + "se.conv_reduce.weight"] = (reduced, inside, 1, 1)
            found[block + "se.conv_reduce.bias"] = (reduced,)
            found[block + "se.conv_expand.weight"] = (inside, reduced, 1, 1)
            found[block + "se.conv_expand.bias"] = (inside,)
            if stage:
                found[block + "conv_pw.weight"] = (inside, ins, 1, 1)
                found[block + "conv_pwl.weight"] = (outs, inside, 1, 1)
                norms |= {block + "bn1": inside, block + "bn2": inside, block + "bn3": outs}
            else:
                found[block + "conv_pw.weight"] = (outs, inside, 1, 1)
                norms |= {block + "bn1": inside, block + "bn2": outs}
    found["conv_head.weight"] = (dim, widths[-1], 1, 1)
    for name, width in norms.items():
        for part in ("weight", "bias", "running_mean", "running_var"):
            found[f"{name}.{part}"] = (width,)
    return found | {"classifier.weight": (outputs, dim), "classifier.bias": (outputs,)}


def filled(shapes):
    """The same numbers wherever they are made."""
    made = {}
    for index, (name, shape) in enumerate(sorted(shapes.items())):
        at = torch.arange(math.prod(shape), dtype=torch.float64)
        draws = 2 * (torch.sin(at * 12.9898 + index * 78.233) * 43758.5453).abs().frac() - 1
        if name.endswith("running_var"):
            values = 1 + 0.5 * draws
        elif len(shape) == 1:
            values = 0.2 * draws + name.endswith("weight")
        else:
            values = draws * 2.75 / math.sqrt(math.prod(shape[1:]))
        made[name] = values.float().reshape(shape)
    return made


# Of timm 1.0.31, tf_efficientnet_b0 and _b2 with these parameters, of two pictures. In double precision: with
# these numbers those of b2 hang on the last bit of single precision, and so on the processor.
SAID = {
    "b0": (B0, 311, 4_062_374, [
        [0.143162, -0.866594, 0.150712, -0.744704, 0.0525950, -0.121951, -1.31144, 0.171932,
         -0.138883, 0.419311],
        [0.484772, -0.492295, 0.408079, -0.0873767, 0.311708, -0.304112, -1.21991, -0.112613,
         -0.312693, 0.413614],
    ]),
    "b2": (B2, 439, 7_779_834, [
        [1401.21, -962.905, 482.743, -184.686, 876.869, 680.984, -622.252, 5.28560],
        [911.522, -218.131, 403.559, 182.908, 43.1372, -173.168, -1463.56, -610.437],
    ]),
}  # fmt: skip


@pytest.mark.parametrize("name", SAID)
@torch.inference_mode()
def test_the_net_gives_what_timm_gives_with_the_published_shapes(name):
    size, names, numbers, expected = SAID[name]
    states = filled(published(*size, outputs=len(expected[0])))
    assert len(states) == names
    assert sum(value.numel() for value in states.values()) == numbers
    net = EfficientNet(states).double().eval()
    net.load_state_dict(states)
    at = torch.arange(2 * 3 * 61 * 47, dtype=torch.float64)
    features, outputs = net(torch.sin(at * 0.05 + at.sqrt()).reshape(2, 3, 61, 47))
    assert features.shape == (2, size[0])
    np.testing.assert_allclose(outputs, expected, rtol=1e-3)


@pytest.fixture
def case(case_of):
    return case_of("emotieffnet_va")


class Node(torch.nn.Module):
    """A module of any name with parameters and modules of any name."""


def module_of(states):
    """A whole model, as a library would save it."""
    root = Node()
    for name, value in states.items():
        *places, last = name.split(".")
        at = root
        for place in places:
            if place not in at._modules:
                at.add_module(place, Node())
            at = at._modules[place]
        if "running" in last:
            at.register_buffer(last, value)
        else:
            at.register_parameter(last, torch.nn.Parameter(value))
    return root


def weights_of(case):
    return load_file(case[1]["model"] / "model.safetensors")


def load_with(case, folder):
    return load(case[0], {**case[1], "model": folder})


class TestWeights:
    @pytest.mark.parametrize("listed", [False, True], ids=["alone", "listed"])
    @pytest.mark.parametrize("whole", [False, True], ids=["dict", "whole model"])
    def test_of_torch_files_are_those_of_safetensors(
        self, case, clips_for, tmp_path, whole, listed
    ):
        states = weights_of(case)
        if listed:
            for part in ("weight", "bias"):
                states[f"classifier.0.{part}"] = states.pop(f"classifier.{part}")
        torch.save(module_of(states) if whole else states, tmp_path / "model.pt")
        clips = clips_for(case[0], (1.1,))
        (one,), (other,) = (each.encode(clips) for each in (load(*case), load_with(case, tmp_path)))
        np.testing.assert_array_equal(one.values, other.values)
        for name, column in one.side.items():
            np.testing.assert_array_equal(column, other.side[name])

    def test_of_a_whole_model_run_nothing_that_it_names(self, case, tmp_path):
        made = tmp_path / "made"

        class Attack:
            def __reduce__(self):
                return open, (str(made), "w")

        model = module_of(weights_of(case))
        model.hook = Attack()
        torch.save(model, tmp_path / "model.pt")
        with contextlib.suppress(WeightsError):
            load_with(case, tmp_path)
        assert not made.exists()

    def test_that_go_on_without_end_are_refused(self, case, tmp_path):
        model = Node()
        model._modules["blocks"] = model
        torch.save(model, tmp_path / "model.pt")
        with pytest.raises(WeightsError, match="is no emotieffnet_va"):
            load_with(case, tmp_path)

    @pytest.mark.parametrize("change", ["lost", "other", "outputs"])
    def test_that_are_others_are_refused_in_one_line(self, case, tmp_path, change):
        states = weights_of(case)
        if change == "lost":
            del states["blocks.1.0.bn3.weight"]
        elif change == "other":
            states["blocks.7.0.conv_dw.weight"] = torch.zeros(3)
        else:
            states |= {
                "classifier.weight": torch.zeros(8, 32),
                "classifier.bias": torch.zeros(8),
            }
        save_file(states, tmp_path / "model.safetensors")
        with pytest.raises(WeightsError, match="is no emotieffnet_va") as told:
            load_with(case, tmp_path)
        assert "\n" not in str(told.value)

    def test_of_another_width_say_what_to_type(self, case_of):
        descriptor, weights = case_of("emotieffnet", "dim=40")
        with pytest.raises(ConfigError, match=r"have width 32, expected 40; type .*dim=32"):
            load(descriptor, weights)


class TestWhatItSays:
    def test_is_probabilities_of_eight_and_two_values_as_they_are(self, case, clips_for):
        (found,) = load(*case).encode(clips_for(case[0], (1.1,)))
        np.testing.assert_allclose(found.side["emotion"].sum(1), 1, rtol=1e-5)
        states = weights_of(case)
        outputs = found.values @ states["classifier.weight"].numpy().T
        outputs += states["classifier.bias"].numpy()
        np.testing.assert_allclose(found.side["valence"], outputs[:, 8:9], atol=1e-4)
        np.testing.assert_allclose(found.side["arousal"], outputs[:, 9:], atol=1e-4)

    def test_is_of_the_face_and_of_frames_that_have_one(self, case_of, clips_for, monkeypatch):
        class Finder(FaceFinder):
            def __init__(self, *files, threads):
                pass

            def find(self, frame):
                seen = frame[0, 0, 0] > 127
                return Face((32.0, 24.0), 20.0, 0.3, 0.9, 0.9, np.zeros((468, 3))) if seen else None

        monkeypatch.setattr("encoders.video._transformer.FaceFinder", Finder)
        descriptor, weights = case_of("emotieffnet", "crop=none")
        (clip,) = clips_for(descriptor, (2.3,))
        descriptor = replace(descriptor, options={**descriptor.options, "crop": "face"})
        files = dict.fromkeys(("detector", "mesh"), weights["model"])
        faces = load(descriptor, {**weights, **files})
        (found,) = faces.encode([clip])
        pixels = clip.frames[descriptor.frame_policy].pixels
        expected = pixels[:, 0, 0, 0] > 127
        assert 0 < expected.sum() < len(expected)
        np.testing.assert_array_equal(found.valid, expected)
        assert not found.values[~expected].any()
        assert found.values[expected].all(axis=1).any()
        far = pixels.copy()
        far[:, 47, 63] = 0  # outside the crop
        policy = descriptor.frame_policy
        moved = Frames(far, clip.frames[policy].times_s)
        (again,) = faces.encode([replace(clip, frames={policy: moved})])
        np.testing.assert_array_equal(again.values, found.values)
        inputs = replace(descriptor, options={**descriptor.options, "publish": "inputs"})
        (given,) = load(inputs, {**weights, **files}).encode([clip])
        np.testing.assert_array_equal(given.valid, expected)
        assert not given.values[~expected].any()
        values = torch.from_numpy(given.values).float()[None]
        values[0, ~torch.from_numpy(expected)] = torch.nan
        states, said = load_branch(inputs, weights).eval()(values, torch.from_numpy(expected)[None])
        assert said[0].tolist() == expected.tolist()
        np.testing.assert_allclose(states[0].detach(), found.values, atol=1e-4, rtol=1e-3)


def test_pictures_have_the_side_that_the_width_was_trained_on(case_of):
    descriptor, weights = case_of("emotieffnet", "px=0")
    assert load(descriptor, weights)._px == _emotieffnet.PX == 224
    assert (_emotieffnet.WIDE, _emotieffnet.WIDE_PX) == (1408, 260)


@pytest.mark.parametrize(
    ("px", "said"), [("", "px=224 came; type px=260"), (",px=96", "px=96 came")]
)
def test_published_pictures_are_not_smaller_than_those_of_its_training(tmp_path, px, said):
    save_file(filled(published(*B2, outputs=8)), tmp_path / "b2.safetensors")
    name = f"emotieffnet:weights=file://{tmp_path}/b2.safetensors,dim=1408,crop=none,publish=inputs"
    weights = {"model": tmp_path / "b2.safetensors"}
    for loads in (load, load_branch):
        with pytest.raises(ConfigError, match=said):
            loads(describe(f"{name}{px}"), weights)
    assert load_branch(describe(f"{name},px=260"), weights).dim == 1408
