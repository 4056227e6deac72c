"""VGGish: front end and network give the values of the authors' code."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from cluster.errors import WeightsError
from encoders.audio._vggish_net import WIDTHS, VggishNet, load_parameters, log_mel, patches
from encoders.registry import load

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(os.environ.get("AFFUSE_GOLDEN", ROOT.parent / "shared" / "golden"))


def golden(name):
    path = GOLDEN / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"no golden values at {path}; set AFFUSE_GOLDEN")
    return np.load(path, allow_pickle=False)


class TestFrontEnd:
    @pytest.fixture
    def sound(self):
        return golden("vggish_frontend")["input/waveform_int16"] / 32768

    def test_log_mel_is_the_authors(self, sound):
        expected = golden("vggish_frontend")["output/log_mel"]
        np.testing.assert_allclose(log_mel(sound), expected, atol=1e-5)

    def test_a_patch_is_96_whole_frames(self, sound):
        expected = golden("vggish_frontend")["output/examples"][:, 0]
        np.testing.assert_allclose(patches(sound), expected, atol=1e-5)

    @pytest.mark.parametrize(("name", "low_hz"), [("", 125.0), ("_725", 725.0)])
    def test_another_geometry_too(self, sound, name, low_hz):
        expected = golden("vggish_frontend")[f"output/log_mel_128_hop15{name}"]
        values = log_mel(sound, hop=240, bands=128, low_hz=low_hz)
        np.testing.assert_allclose(values, expected, atol=1e-5)


class TestNetwork:
    def test_the_narrow_stack_gives_the_authors_embedding_and_gradient(self):
        facts = golden("vggish_narrow")
        sizes = (facts[f"hyper/{name}"].tolist() for name in ("channels", "embedding_sizes"))
        net = VggishNet(*map(tuple, sizes))
        state = {
            name.removeprefix("param/"): torch.from_numpy(facts[name])
            for name in facts.files
            if name.startswith("param/")
        }
        net.load_state_dict(state)
        net.double().eval()
        sound = torch.from_numpy(facts["input/log_mel"]).double().requires_grad_()
        out = net(sound)
        np.testing.assert_allclose(out.detach(), facts["output64/embedding"], atol=1e-9)
        out.sum().backward()
        np.testing.assert_allclose(sound.grad, facts["grad64/log_mel"], atol=1e-9)

    def test_the_full_stack_gives_the_authors_map(self):
        facts = golden("vggish_full")
        net = VggishNet(WIDTHS, dense=())
        draw = np.random.RandomState(int(facts["hyper/seed"]))
        digest = hashlib.sha256()
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                fan = 9 * parameter.shape[1] if parameter.ndim == 4 else None
                bound = 2 / np.sqrt(fan) if fan else 0.1
                uniform = draw.uniform(-1, 1, tuple(parameter.shape))
                value = (np.round(uniform * bound * 4096) / 4096).astype(np.float32)
                assert float(facts[f"param_sum/{name}"]) == pytest.approx(
                    float(value.astype(np.float64).sum()), abs=1e-3
                )
                digest.update(value.astype("<f4").tobytes())
                parameter.copy_(torch.from_numpy(value))
            assert digest.hexdigest() == str(facts["hyper/weights_sha256"])
            sound = torch.from_numpy(facts["input/log_mel"])
            np.testing.assert_allclose(
                net.features(sound), facts["output/features"], atol=1e-4, rtol=1e-5
            )
            np.testing.assert_allclose(
                net.time_mean(sound).reshape(1, 512, 4),
                facts["output/time_mean"],
                atol=1e-4,
                rtol=1e-5,
            )


class TestCheckpoint:
    def test_a_torch_file_is_read_without_running_anything(self, tmp_path):
        torch.save({"features.0.bias": torch.ones(64)}, tmp_path / "net.pth")
        assert load_parameters(tmp_path / "net.pth")["features.0.bias"].shape == (64,)

    def test_another_network_is_refused(self, tmp_path):
        from encoders.registry import describe

        torch.save({"conv.weight": torch.ones(1)}, tmp_path / "net.pth")
        descriptor = describe(f"vggish:weights=file://{tmp_path}/net.pth")
        with pytest.raises(WeightsError, match=r"lacks features\.0\.weight.*torchvggish"):
            load(descriptor, {"model": tmp_path / "net.pth"})

    def test_the_wrapper_is_front_end_and_network(self, case_of, clips_for):
        descriptor, paths = case_of("vggish")
        (clip,) = clips_for(descriptor, (2.3,))
        (encoded,) = load(descriptor, paths).encode([clip])
        net = VggishNet().eval()
        net.load_state_dict(load_parameters(paths["model"]))
        sound = torch.from_numpy(patches(clip.waveforms[16000])).float()[:, None]
        with torch.inference_mode():
            np.testing.assert_allclose(encoded.values, net(sound), atol=1e-5)
        assert len(encoded.values) == 2
