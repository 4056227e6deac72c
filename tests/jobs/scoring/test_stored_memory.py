"""What scoring stored features holds: of a row nothing in Python, of each unit of 64 rows a little."""

import gc
import importlib.util
import tracemalloc
from pathlib import Path

import pytest

from jobs.scoring import stacks

SMALL, LARGE = 20_000, 100_000

MOST_BYTES = 60
"""A row; 38 were found, most of them of its unit. A list of whole numbers alone would add 40."""


def bench_size():
    """The benchmark that makes manifests of many rows of text."""
    file = Path(__file__).parents[2] / "benchmarks" / "bench_size.py"
    spec = importlib.util.spec_from_file_location("bench_size", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def score_rows(tmp_path_factory):
    """Makes a root of so many rows, scores it, and says how much Python and numpy held at most."""
    bench = bench_size()

    def peak(rows):
        place = tmp_path_factory.mktemp(str(rows))
        source, root = place / "source", place / "root"
        source.mkdir()
        bench.make_labels(str(source / "labels.parquet"), rows)
        bench.prepared(str(source), str(root))
        bench.encode_small(str(root))
        gc.collect()
        tracemalloc.start()
        try:
            bench.scored(str(root))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    return peak


@pytest.mark.slow
def test_nothing_is_kept_of_a_row_while_stored_features_are_scored(score_rows, monkeypatch):
    monkeypatch.setattr(stacks, "STACK_S", 1e9)  # stacks of one size, however busy the machine is
    score_rows(2_000)  # what is imported or made once
    small, large = score_rows(SMALL), score_rows(LARGE)
    assert (large - small) / (LARGE - SMALL) < MOST_BYTES
