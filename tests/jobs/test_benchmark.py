"""The benchmark's arithmetic, and one short run of it."""

import json
import sys
from pathlib import Path

import pytest

from cluster.errors import ConfigError
from cluster.resources import WorkersConfig
from cluster.session import SessionConfig
from encoders import ENCODERS
from jobs import benchmark
from jobs.benchmarking.rates import Alone, _held, _steady

TOYS = str(Path(__file__).parent / "toys")


def test_on_a_cpu_machine_decode_and_models_share_the_cores_so_their_times_add():
    alone = Alone(decode=30.0, models={"a": 20.0, "b": 60.0})
    assert alone.ideal(on_gpu=False) == pytest.approx(1 / (1 / 30 + 1 / 20 + 1 / 60))


def test_on_gpus_the_slower_side_is_the_ideal():
    alone = Alone(decode=30.0, models={"a": 20.0, "b": 60.0})
    assert alone.ideal(on_gpu=True) == pytest.approx(15.0)
    assert Alone(decode=10.0, models={"a": 20.0}).ideal(on_gpu=True) == 10.0


def test_start_and_end_are_outside_the_steady_state():
    times = [10.0 + i for i in range(9)] + [60.0]
    assert _steady(times, range(10, 101, 10)) == pytest.approx(10.0)


def test_memory_at_a_quarter_is_not_that_of_the_start():
    held = _held(
        range(10, 101, 10), [1.0, 500.0, 510.0, 505.0, 505.0, 505.0, 505.0, 600.0, 520.0, 530.0]
    )
    assert (held.quarter, held.end, held.peak) == (505.0, 530.0, 600.0)


def test_what_limits_is_named_with_its_share():
    assert benchmark.limit(10.0, {"a": 2.5}, on_gpu=False) == "a: 80% of the cores' time"
    assert benchmark.limit(1.0, {"a": 2.5}, on_gpu=True).startswith("decode")


def test_nothing_to_measure_is_refused():
    with pytest.raises(ConfigError, match="--encoders"):
        benchmark.EncodeConfig(root="x", encoders=())
    with pytest.raises(ConfigError, match="--rounds"):
        benchmark.EncodeConfig(root="x", encoders=("egemaps",), rounds=0)


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_gives_a_table_and_the_same_figures_as_json(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(TOYS)
    monkeypatch.setenv("PYTHONPATH", TOYS)
    monkeypatch.setitem(ENCODERS, "toy_audio", "toy_audio")
    monkeypatch.setenv("RAY_metrics_report_interval_ms", "1000")
    import toy_corpus

    toy_corpus.write_corpus(tmp_path, 48, unit_size=4)
    before = sorted(tmp_path.rglob("*"))
    config = benchmark.EncodeConfig(
        root=str(tmp_path),
        encoders=("toy_audio",),
        clips=40,
        rounds=1,
        json=str(tmp_path / "figures.json"),
        workers=WorkersConfig(gpus_per_actor=0),
        session=SessionConfig(num_cpus=2, num_gpus=0),
    )
    benchmark.main(config)
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["clips"] == 48
    assert figures["efficiency"] > 0
    assert figures["end_to_end"] < figures["end_to_end_steady"]
    for held in figures["private_mb"].values():
        assert 0 < held["quarter"] <= held["peak"]
    table = capsys.readouterr().out
    assert f"{figures['efficiency']:.3f}" in table
    assert figures["health"]["complaints"] == []
    assert 0 < figures["health"]["store_peak_gb"] < 0.1
    assert "sound: nothing evicted" in table
    plain = figures["plain"]
    assert (plain["clips"], plain["failed"]) == (48, 0)
    assert plain["ratios"].keys() == {"whole", "decode", *figures["model_only"]}
    assert plain["ratios"]["whole"] == pytest.approx(figures["end_to_end_steady"] / plain["rate"])
    assert f"{plain['ratios']['whole']:.2f} times" in table
    written = [tmp_path / "figures.json", tmp_path / "figures.json.config.json"]
    assert sorted(tmp_path.rglob("*")) == sorted([*before, *written])
    for name in [name for name in sys.modules if name.startswith("toy_")]:
        del sys.modules[name]
