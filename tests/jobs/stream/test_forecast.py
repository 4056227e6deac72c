"""A dry run prints the plan of the machines that are described and where each figure is from."""

import re
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import storage
from cluster.errors import ConfigError, PlanError
from encoders.registry import describe
from jobs import encode, score
from jobs.__main__ import run
from jobs.catalog import layout
from jobs.catalog.manifest import units
from jobs.scoring import raw_clips
from jobs.stream import forecast
from jobs.stream.clip_timing import Half, Timed
from jobs.stream.forecast import Assumed, parse_count
from jobs.stream.selection import chosen_work


@pytest.fixture
def root(toys, tmp_path, monkeypatch):
    """A dataset of 40 sounds in units of 4; whoever starts Ray fails."""
    monkeypatch.setattr(encode, "ray_session", None)
    monkeypatch.setattr(raw_clips, "ray_session", None)
    return toys.corpus.write_corpus(tmp_path / "root", 40)


def files(root):
    return {path: path.stat().st_mtime_ns for path in sorted(Path(root).rglob("*"))}


def said(capsys, root, *flags, job="encode", status=0):
    """What a dry run prints; it changes nothing under the root."""
    before = files(root)
    words = [job, "--root", str(root), "--dry-run", *flags]
    words += ["--encoders", "toy_audio"] if job == "encode" else ["--bundle", "b"]
    assert run(words) == status
    assert files(root) == before
    return "".join(capsys.readouterr())


def measure(root, *, seconds, device="a processor"):
    """What autotuning leaves behind."""
    work = chosen_work(str(root), ["toy_audio"], None, "store", find_weights=False)
    half = Half(
        clips=4,
        cost=0.5,
        media_s=0.5,
        decode_s=0.25,
        encode_s={work.descriptors[0].folder: seconds},
    )
    timed = Timed(
        halves=(half, half), unreadable=0, device=device, actor_gb=0.5, decoder_gb=0.5, clip_gb=1e-3,
        seconds=9.0,
    )  # fmt: skip
    name = f"autotune-{abs(hash(device))}.json"
    storage.publish_json(asdict(timed), layout.encodings_uri(str(root), name))


class TestEncode:
    @pytest.mark.parametrize("option", ["policy=some", "frames=0", "fps=0", "crop=hand"])
    def test_an_option_that_no_model_reads_is_one_line_and_no_plan(self, root, capsys, option):
        name = f"hub_video:weights=file:///none,dim=32,depth=2,{option}"
        assert run(["encode", "--root", str(root), "--dry-run", "--encoders", name]) == 2
        said = capsys.readouterr()
        assert not said.out
        assert said.err.count("\n") == 1
        assert option.partition("=")[0] in said.err

    def test_a_described_cluster_is_planned_without_one(self, root, capsys):
        text = said(capsys, root, "--assume.nodes", "128xH100:16cpu", "--assume.clips", "100M")
        assert "plan: for 128xH100:16cpu: 2048 CPUs, 128 GPUs" in text
        assert "100,000,000 clips in 10,000,000" not in text  # units of 4
        assert "100,000,000 clips in 25,000,000 units" in text
        for what in (
            "decode up to",
            "encode up to",
            "object store",
            "files",
            "time",
            "not measured",
        ):
            assert what in text

    def test_without_an_assumption_this_machine_does_what_is_left(self, root, capsys):
        text = said(capsys, root, "--session.num-cpus", "3", "--session.num-gpus", "0")
        assert "plan: for this machine: 3 CPUs" in text
        assert "40 clips in 10 units" in text

    def test_what_was_measured_is_taken_and_named(self, root, capsys):
        measure(root, seconds=0.75)
        flags = [
            "--assume.nodes",
            "10x4cpu",
            "--assume.clips",
            "36k",
            "--assume.price-per-hour",
            "2",
        ]
        text = said(capsys, root, *flags)
        assert "toy_audio 0.75 s: measured on a processor (autotune-" in text
        # 40 cores at a second a clip, 0.9 of it: 36 clips/s; so 1000 s on 10 machines
        assert "time: 16.7 minutes at about 36 clips/s" in text
        assert "price: 5.56 = 0.28 h x 10 machines x 2" in text

    def test_a_gpu_is_guessed_from_a_core_and_that_is_said(self, root, capsys):
        measure(root, seconds=2.0)
        text = said(capsys, root, "--assume.nodes", "1xL4:16cpu")
        assert "toy_audio 0.1 s: measured on a processor" in text
        assert "which is a guess" in text
        measure(root, seconds=0.5, device="NVIDIA L4")
        text = said(capsys, root, "--assume.nodes", "1xL4:16cpu")
        assert "toy_audio 0.5 s: measured on NVIDIA L4" in text
        assert "guess" not in text

    def test_a_cluster_of_which_nothing_is_said_is_not_asked(self, root, capsys):
        text = said(capsys, root, "--session.address", "10.0.0.1:6379", status=2)
        assert "type e.g.: --assume.nodes 8xL4:16cpu" in text

    def test_what_cannot_fit_is_refused_as_the_job_would_be(self, root, capsys):
        text = said(capsys, root, "--assume.nodes", "2x1cpu", "--workers.actors", "9", status=1)
        assert "9 encoder actors of 1 thread need 9 CPUs; there are 2" in text

    def test_machines_of_a_session_on_this_one_are_refused(self, root):
        words = ["--root", str(root), "--encoders", "toy_audio", "--workers.nodes", "4"]
        assert run(["encode", *words]) == 2

    def test_all_done_is_said(self, root, capsys, monkeypatch):
        monkeypatch.setattr(encode, "missing_tasks", lambda *_: [])
        assert "nothing to do: all 40 clips" in said(capsys, root)


class TestScore:
    def test_the_stream_of_a_bundle_is_planned_alike(self, root, toys, capsys):
        toys.bundle.write_bundle(root)
        text = said(
            capsys, root, "--assume.nodes", "4xL4:16cpu", "--assume.clips", "1M", job="score"
        )
        assert "plan: for 4xL4:16cpu: 64 CPUs, 4 GPUs" in text
        assert "1,000,000 clips" in text
        assert len(units(str(root))) == 10

    def test_what_a_stream_would_refuse_is_not_planned(self, root, toys, capsys):
        toys.bundle.write_bundle(root, normalise="speaker")
        text = said(capsys, root, job="score", status=2)
        assert "reads whole dialogues or speakers" in text

    def test_files_without_a_manifest_are_not_planned(self):
        with pytest.raises(ConfigError, match="plans a dataset"):
            score.Config(clips=("a.wav",), dry_run=True)


def test_assumptions_are_for_dry_runs_only():
    with pytest.raises(ConfigError, match="type: --dry-run"):
        encode.Config(root="r", encoders=("minilm",), assume=Assumed(clips="9"))


@given(st.integers(1, 10**12))
def test_a_number_of_clips_is_read_as_it_is_printed(count):
    assert parse_count(str(count)) == count
    assert parse_count(f"{count}k") == 1000 * count


@pytest.mark.parametrize(
    ("text", "count"), [("100M", 10**8), ("1.5m", 1_500_000), ("2G", 2 * 10**9), ("0.25k", 250)]
)
def test_large_numbers_may_be_shortened(text, count):
    assert parse_count(text) == count


@given(st.text(alphabet="0123456789.kMG-e ", max_size=8))
def test_what_is_no_number_of_clips_is_refused_with_an_example(text):
    try:
        count, refusal = parse_count(text), ""
    except ConfigError as error:
        count, refusal = 1, str(error)
    assert count >= 1
    assert not refusal or re.search(r"expected a number such as .* 100M", refusal)


def test_published_pictures_are_counted_as_the_bytes_that_they_are():
    pictures = describe("clip_vit:publish=inputs")
    assert forecast._row_gb(pictures, 4.0) == 8 * 3 * 224**2 / 1e9
    assert forecast._row_gb(pictures, 4000.0) == 16 * 3 * 224**2 / 1e9
    runs = describe("videomae:publish=inputs,policy=windows,most=64")
    assert forecast._row_gb(runs, 4.0) == 32 * 3 * 224**2 / 1e9


def test_a_model_that_fits_nowhere_is_refused(root, monkeypatch):
    monkeypatch.setattr(sys.modules["jobs.stream.forecast"], "models_gb", lambda _: {"huge": 900.0})
    config = encode.Config(
        root=str(root), encoders=("toy_audio",), dry_run=True, assume=Assumed(nodes="1x8cpu:32gb")
    )
    with pytest.raises(PlanError, match="huge takes"):
        encode.main(config)
