"""The fourteen models of the influencer-empathy study have the sizes they were published with."""

import pytest

from fusion.nets import net_class, net_config

DIMS = {"text": 768, "audio": 74, "video": 35}

COUNTS = {
    # preset: (net, modalities, published parameters, of them in vertex networks)
    "A1": ("lstm", "text", 52_785, 0),
    "A2": ("lstm", "audio", 32_513, 0),
    "A3": ("lstm", "video", 45_089, 0),
    "A4": ("ef_lstm", "text audio", 130_817, 0),
    "A5": ("ef_lstm", "text video", 266_785, 0),
    "A6": ("ef_lstm", "audio video", 1_053_153, 0),
    "A7": ("ef_lstm", "text audio video", 135_297, 0),
    "A11": ("graph_mfn", "text audio video", 1_046_577, 0),
    "A12": ("graph_mfn", "text audio video", 904_804, 96_080),
    "A13": ("graph_mfn", "text audio video", 397_980, 138_512),
    "A14": ("graph_mfn", "text audio video", 896_220, 127_056),
}

ROUNDED = {"A8": ("tfn", 9.31e6), "A9": ("lmf", 1.23e6), "A10": ("mfn", 2.16e6)}
"""Published to three figures only."""


def count(net, preset, modalities):
    config = net_config(net, {"preset": preset})
    dims = {name: DIMS[name] for name in modalities}
    built = net_class(net)(config, dims=dims, outputs={"empathy": 1})
    vertices = 0
    if net == "graph_mfn" and built.graph is not None:
        vertices = sum(p.numel() for p in built.graph.vertex.parameters())
    return sum(p.numel() for p in built.parameters()), vertices


@pytest.mark.parametrize("preset", list(COUNTS))
def test_a_preset_has_exactly_the_published_parameters(preset):
    net, modalities, registered, vertices = COUNTS[preset]
    assert count(net, preset, modalities.split()) == (registered + vertices, vertices)


@pytest.mark.parametrize("preset", list(ROUNDED))
def test_a_preset_has_the_published_parameters_to_three_figures(preset):
    net, published = ROUNDED[preset]
    total, _ = count(net, preset, list(DIMS))
    assert abs(total - published) <= 0.005e6


def test_there_are_fourteen():
    assert sorted([*COUNTS, *ROUNDED], key=lambda a: int(a[1:])) == [f"A{i}" for i in range(1, 15)]
