"""`make gpu` as it stands, on a machine without a GPU: small sizes, every part; no part ends the others."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from encoders import ENCODERS
from tests.gpu import run, sizes
from tests.gpu.table import markdown

SCRIPT = Path(run.__file__)


def test_every_size_is_of_an_encoder_that_is_there():
    assert {name.split()[0] for name in sizes.SIZES} <= set(ENCODERS)


def test_shares_of_the_time_make_one_whole():
    assert sum(run.SHARES.values()) == pytest.approx(1)
    assert set(run.SHARES) == set(run.PARTS)


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
        },
    }  # fmt: skip
    text = markdown(found)
    assert text.startswith("### H100, 16 cores, 2026-11-28\n")
    assert "bfloat16 790" in text
    assert "| bert_base | 109.5 | 3.4 | 50000.0 | 512 | 21% | no / kernel |  |  |" in text
    assert "- nets, nets: stopped after 90 s" in text


@pytest.mark.slow
def test_it_runs_as_it_stands_without_a_gpu(tmp_path):
    words = ["--out", str(tmp_path), "--seconds", "400", "--small", "--no-ray"]
    words += ["--encoders", "bert_base", "wav2vec2_base", "--nets", "concat_mlp", "m2fnet"]
    done = subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    parts = json.loads((tmp_path / "rates.json").read_text())["parts"]
    found = {part: {line["name"]: line for line in each["found"]} for part, each in parts.items()}
    assert set(found) == set(run.SHARES)
    wrong = [line for part in found.values() for line in part.values() if "error" in line]
    assert [line["name"] for line in wrong] == ["with Ray"]
    for name in ("bert_base", "wav2vec2_base"):
        assert found["encoders"][name]["bfloat16"]["clips_per_s"] > 0
        assert found["encoders"][name]["gflop"] >= 0
    assert found["nets"]["m2fnet"]["cpu_ms"] > 0
    assert found["decode"]["180p, 8 frames"]["clips_per_s"] > 0
    assert found["encode"]["without Ray"]["efficiency"] > 0
    assert "tiny sizes, the figures say nothing" in (tmp_path / "rates.md").read_text()
