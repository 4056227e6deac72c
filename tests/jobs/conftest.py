"""A prepared dataset for the tests of jobs that train."""

import importlib.util
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location(
    "small_root", Path(__file__).with_name("small_root.py")
)
small_root = importlib.util.module_from_spec(spec)
spec.loader.exec_module(small_root)


@pytest.fixture
def write_root():
    """Writes a small prepared dataset into a folder."""
    return small_root.write_root


@pytest.fixture
def write_views():
    """Writes augmented views of an input of such a dataset."""
    return small_root.write_views


@pytest.fixture
def root(tmp_path) -> str:
    """A small prepared dataset."""
    return small_root.write_root(str(tmp_path / "small"))
