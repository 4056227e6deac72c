"""The examples of docs/adding.md are whole files that work as they stand."""

import json
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from cluster.settings import from_mapping
from encoders.spec import Clip, Descriptor, Encoder
from fusion.batch import Batch, Steps
from fusion.late import LATE
from fusion.late.members import Members
from jobs.tuning import late_fusion
from tests.jobs.datasets.test_conformance import is_cited

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "adding.md"
BLOCK = re.compile(r"`([a-z_/]+)\.py`(?:(?!\.py`|```).)*```python\n(.*?)\n```", re.DOTALL)
EXAMPLES = {path.replace("/", "."): code for path, code in BLOCK.findall(PAGE.read_text())}


@pytest.fixture
def example(monkeypatch):
    """A file of the page as the module that it would be."""

    def load(name):
        module = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(EXAMPLES[name], f"docs/adding.md: {name}", "exec"), module.__dict__)
        return module

    return load


def test_the_page_shows_one_file_of_each_kind():
    kinds = {name.rpartition(".")[0] for name in EXAMPLES}
    assert kinds == {"fusion.nets", "encoders.audio", "jobs.datasets", "fusion.late"}


def test_every_other_file_that_the_page_names_is_there():
    named = set(re.findall(r"`([a-z_]+/[a-z_/]+\.(?:py|md))`", PAGE.read_text()))
    others = {path for path in named if path.removesuffix(".py").replace("/", ".") not in EXAMPLES}
    assert len(others) > 10
    assert not [path for path in others if not (ROOT / path).exists()]


@pytest.mark.parametrize(
    "constant",
    [
        "tests/fusion/late/test_zoo.py: UNFITTED NO_REGRESSION",
        "jobs/tuning/late_fusion.py: OPTIONS",
        "jobs/evaluation/cross_fitting.py: TRIED",
        "jobs/tuning/space.py: PRESETS FIRST_NETS",
        "tests/encoders/conftest.py: WITHOUT_WEIGHTS OFFLINE",
        "tests/jobs/datasets/official_layouts.py: LAYOUTS",
    ],
)
def test_the_places_to_add_a_line_are_called_as_the_page_says(constant):
    file, _, names = constant.partition(": ")
    page, code = PAGE.read_text(), (ROOT / file).read_text()
    for name in (file, *names.split()):
        assert f"`{name}`" in page
    assert not [name for name in names.split() if not re.search(rf"^(def )?{name}\b", code, re.M)]


def test_the_net_gives_logits_and_takes_an_absent_modality(example):
    net = example("fusion.nets.additive").AdditiveFusion
    net = net(net.Config(), dims={"audio": 3, "text": 5}, outputs={"mood": 4}).eval()
    mask = torch.tensor([[True, True], [False, False]])
    inputs = {name: Steps(torch.ones(2, 2, dim), mask) for name, dim in net.dims.items()}
    logits = net(Batch(inputs=inputs)).logits["mood"]
    assert logits.shape == (2, 4)
    assert logits[1].eq(0).all()


def test_the_encoder_gives_what_its_descriptor_says(example):
    module = example("encoders.audio.loudness")
    options = {"layers": "last", "pool": "none", "weights": ""}
    descriptor = Descriptor(spec=module.SPEC, options=options)
    encoder = module.Loudness(descriptor, {})
    assert isinstance(encoder, Encoder)
    samples = np.full(1000, 0.1, np.float32)
    clips = [Clip(clip_id=1, duration_s=1000 / 16000, waveforms={16000: samples})]
    (encoded,) = encoder.encode(clips)
    assert encoded.values.shape == (4, descriptor.dim)
    assert encoded.values[0, 0] == pytest.approx(-20.0, abs=1e-4)


def test_the_adapter_reads_names_and_lists_faults(example, tmp_path):
    for name in ("p07_003_angry.wav", "deep/p08_001_calm.wav", "notes.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    kind = example("jobs.datasets.calls").Config
    collected = from_mapping(kind, {"root": "r", "source": str(tmp_path)}).collect()
    assert {row.speaker: row.labels["mood"] for row in collected.rows} == {
        "p07": "angry",
        "p08": "calm",
    }
    assert len(collected.faults) == 1


def test_the_facts_of_the_dataset_pass_the_test_of_all_adapters(example):
    assert is_cited(example("jobs.datasets.calls").ABOUT)


def test_the_rule_is_the_median_and_survives_its_state(example):
    rule = example("fusion.late.median").Rule
    values = torch.tensor([1.0, 2.0, 9.0]).reshape(3, 1, 1)
    members = Members.from_logits(("a", "b", "c"), "regression", values)
    fitted = rule.fit(rule.Config(), members, torch.tensor([2.0]))
    assert fitted.combine(members).item() == 2.0
    again = rule.from_state(json.loads(json.dumps(fitted.state())))
    assert torch.equal(again.combine(members), fitted.combine(members))


def test_the_rule_is_drawn_by_a_search_once_its_two_lines_are_there(example, monkeypatch):
    example("fusion.late.median")
    assert '`"median": {},` in `OPTIONS`' in PAGE.read_text()
    monkeypatch.setitem(LATE, "median", "median of log-probabilities or values")
    monkeypatch.setattr(late_fusion, "OPTIONS", {**late_fusion.OPTIONS, "median": {}})
    drawn = late_fusion.drawn("classification", ("a", "b", "c"), 100, 0)
    assert "median" in {candidate.rule for candidate in drawn}
