"""`make gpu` as it stands, on a machine without a GPU: small sizes, every part; no part ends the others."""

import json
import subprocess
import sys
import time
import types
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from encoders import ENCODERS, registry
from encoders.clip import FramePolicy
from tests.gpu import card_decoder, commands, finetune, machine, models, nets, pipeline, run, sizes
from tests.gpu.table import markdown

SCRIPT = Path(run.__file__)


def test_every_size_is_of_an_encoder_that_is_there():
    assert {name.split()[0] for name in sizes.SIZES} <= set(ENCODERS)


def test_every_encoder_of_the_hub_has_a_size():
    of_the_hub = [name for name in ENCODERS if models.is_of_the_hub(registry.find(name))]
    assert sizes.without_size(of_the_hub) == []


def test_shares_of_the_time_make_one_whole():
    assert sum(run.SHARES.values()) == pytest.approx(1)
    assert set(run.SHARES) == set(run.PARTS)


class ByPyAV:
    """As torchcodec's decoder, so far as it is used here: every frame, in its own colours and size."""

    def __init__(self, path, *, device):
        assert device == "cpu"
        with av.open(path) as film:
            frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
        self._frames = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)

    def __len__(self):
        return len(self._frames)

    def get_frames_in_range(self, start, stop):
        return types.SimpleNamespace(data=self._frames[start:stop])


class Noted:
    """Lines of a part, by name."""

    def __init__(self):
        self.lines = {}

    def __call__(self, name, **facts):
        self.lines[name] = facts

    def attempt(self, name, call):
        try:
            self(name, **call())
        except RuntimeError as error:
            self(name, error=str(error))


class TestFiguresOfSmallSizes:
    """Each part in this process; what fails in one is raised."""

    @pytest.fixture
    def found(self, tmp_path):
        def found(measure, **changes):
            facts = {
                "seconds": 60.0,
                "small": True,
                "device": "cpu",
                "work": tmp_path,
                "ray": False,
            }
            say = Noted()
            measure(machine.Task(**{**facts, **changes}), say)
            return say.lines

        return found

    def test_the_machine_and_its_products(self, found):
        lines = found(machine.measure)
        assert lines["machine"]["gpu"] is None
        assert lines["machine"]["small"]
        assert all(lines[name]["tflops"] > 0 for name in ("bfloat16", "float16", "float32"))

    def test_models(self, found):
        lines = found(models.measure, encoders=("minilm",))
        assert lines["minilm"]["bfloat16"]["clips_per_s"] > 0

    def test_nets(self, found):
        assert found(nets.measure, nets=("m2fnet",))["m2fnet"]["cpu_ms"] > 0

    def test_fine_tuning_in_every_way(self, found):
        lines = found(finetune.measure)
        assert len(lines) == len(finetune.ENCODERS) * len(finetune.WAYS) + 1
        for line in lines.values():
            assert line["cpu_float32_ms"] > 0
            assert line["cpu_bfloat16_ms"] > 0
        for name in finetune.ENCODERS:
            few = lines[f"{name}, low-rank updates"]["trained_m"]
            assert few < lines[f"{name}, all of it"]["trained_m"]

    def test_decoding(self, found):
        lines = found(pipeline.measure_decode, seconds=1.0)
        assert lines["180p, 8 frames"]["clips_per_s"] > 0
        card = lines["180p, all frames, on the card"]
        assert "clips_per_s" in card or card["error"].startswith("torchcodec cannot be loaded")

    def test_decoding_on_the_card_is_timed_and_its_pixels_held_against_ours(
        self, tmp_path, monkeypatch
    ):
        path = tmp_path / "film.mp4"
        pipeline.film(path, pipeline.SMALL_FILM["180p"], 0.4)
        module = types.ModuleType("torchcodec.decoders")
        module.VideoDecoder = ByPyAV
        monkeypatch.setitem(sys.modules, "torchcodec", types.ModuleType("torchcodec"))
        monkeypatch.setitem(sys.modules, "torchcodec.decoders", module)
        task = machine.Task(seconds=9.0, small=True, device="cpu", work=tmp_path)
        found = card_decoder.figures(path, FramePolicy(kind="fps", rate_hz=25.0), task, 0.01)
        assert found["clips_per_s"] > 0
        assert found["mean_apart"] < 2

    def test_the_whole_without_ray_imports_none_of_it(self, found, monkeypatch):
        for name in [name for name in sys.modules if name.partition(".")[0] == "ray"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "ray", None)  # an import of it fails
        lines = found(pipeline.measure_encode, seconds=5.0, ray=True)
        assert lines["without Ray"]["efficiency"] > 0
        assert "cannot be imported" in lines["with Ray"]["error"]

    def test_a_model_that_fails_ends_the_line_and_its_readers(self):
        def take(_):
            raise ZeroDivisionError

        line = pipeline.Line(lambda _, unit: unit, take, readers=2, takers=1)
        with pytest.raises(ZeroDivisionError):
            line.run([[number] for number in range(100)])

    def test_a_part_without_time_says_so_of_each_figure(self, found):
        for measure in (nets.measure, finetune.measure):
            lines = found(measure, seconds=0.0)
            assert all(line == {"error": "no time was left"} for line in lines.values())
            assert lines

    def test_a_command_that_outlives_its_time_is_stopped_and_named(self, tmp_path, monkeypatch):
        sleeps = tmp_path / "python"
        sleeps.write_text("#!/bin/sh\nexec sleep 60\n")
        sleeps.chmod(0o700)
        monkeypatch.setattr(commands.sys, "executable", str(sleeps))
        task = machine.Task(seconds=0.0, small=True, device="cpu", work=tmp_path)
        with pytest.raises(RuntimeError, match="affuse benchmark: stopped after 1 s"):
            commands.affuse(["benchmark", "encode"], task)


class TestParts:
    @pytest.fixture
    def part(self, tmp_path, monkeypatch):
        """Run a stand-in for a part, as a part is run."""

        def part(code, limit_s=60.0):
            script = tmp_path / "part.py"
            script.write_text(f"import sys, json, time\nlines = sys.argv[4]\n{code}")
            monkeypatch.setattr(run, "__file__", str(script))
            options = run.parsed(["--out", str(tmp_path), "--seconds", "60"])
            return run.run_part("nets", options, limit_s, tmp_path, run.with_wheels(None, tmp_path))

        return part

    SAYS = 'open(lines, "a").write(json.dumps({"name": "one", "cpu_ms": 1.0}) + "\\n")\n'

    def test_what_it_found_is_kept_line_by_line(self, part):
        assert part(self.SAYS)["found"] == [{"name": "one", "cpu_ms": 1.0}]

    def test_one_that_fails_costs_a_line(self, part):
        found = part(self.SAYS + 'raise SystemExit("no card")')["found"]
        assert found[0]["name"] == "one"
        assert found[1] == {"name": "nets", "error": "ended with status 1: no card"}

    def test_one_that_hangs_is_stopped_and_what_it_had_is_kept(self, part):
        begun = time.monotonic()
        found = part(self.SAYS + "time.sleep(600)", limit_s=3.0)["found"]
        assert [line["name"] for line in found] == ["one", "nets"]
        assert found[1]["error"].startswith("stopped after 3 s")
        assert time.monotonic() - begun < 60

    def test_a_folder_without_wheels_is_said(self, tmp_path):
        with pytest.raises(SystemExit, match="holds no wheels"):
            run.with_wheels(tmp_path, tmp_path / "site")


def test_the_table_has_date_card_figures_and_what_failed():
    found = {
        "date": "2026-11-28T12:00:00Z",
        "parts": {
            "matrix": {"found": [
                {"name": "machine", "gpu": "H100", "cores": 16}, {"name": "bfloat16", "tflops": 790.0}]},
            "encoders": {"found": [
                {"name": "bert_base", "parameters_m": 109.5, "gflop": 3.4, "bfloat16": {
                    "clips_per_s": 50000.0, "batch": 512, "share_of_matrix_rate": 0.21},
                 "float16": {"error": "no | kernel"}}]},
            "nets": {"found": [{"name": "nets", "error": "stopped after 90 s"}]},
            "finetune": {"found": [
                {"name": "text, all of it", "trained_m": 22.6, "cuda_bfloat16_ms": 20.0,
                 "cuda_float32_ms": 40.0, "cpu_float32_ms": 800.0, "times_faster": 40.0,
                 "bfloat16_memory_gb": 0.8, "float32_memory_gb": 1.1, "rows": 32}]},
        },
    }  # fmt: skip
    text = markdown(found)
    assert text.startswith("### H100, 16 cores, 2026-11-28\n")
    assert "bfloat16 790" in text
    assert "| bert_base | 109.5 | 3.4 | 50000.0 | 512 | 21% | no / kernel |  |  |" in text
    assert "| text, all of it | 22.6 | 20.0 | 40.0 | 800.0 | 40.0 | 50.0 | 0.8 | 1.1 |" in text
    assert "- nets, nets: stopped after 90 s" in text


@pytest.mark.slow
@pytest.mark.timeout(620)
def test_it_runs_as_it_stands_without_a_gpu(tmp_path):
    words = ["--out", str(tmp_path), "--seconds", "560", "--small"]
    words += ["--encoders", "bert_base", "wav2vec2_base", "--nets", "concat_mlp", "m2fnet"]
    done = subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    parts = json.loads((tmp_path / "rates.json").read_text())["parts"]
    found = {part: {line["name"]: line for line in each["found"]} for part, each in parts.items()}
    assert set(found) == set(run.SHARES)
    wrong = [line for part in found.values() for line in part.values() if "error" in line]
    assert {line["name"] for line in wrong} <= {"180p, all frames, on the card"}
    for name in ("bert_base", "wav2vec2_base"):
        assert found["encoders"][name]["bfloat16"]["clips_per_s"] > 0
        assert found["encoders"][name]["gflop"] >= 0
    assert found["nets"]["m2fnet"]["cpu_ms"] > 0
    assert found["decode"]["180p, 8 frames"]["clips_per_s"] > 0
    assert found["encode"]["without Ray"]["efficiency"] > 0
    assert found["encode"]["with Ray"]["efficiency"] > 0
    assert found["finetune"]["text and sound, all of it"]["cpu_bfloat16_ms"] > 0
    assert "tiny sizes, the figures say nothing" in (tmp_path / "rates.md").read_text()
