"""A prepared dataset for the tests of jobs that train."""

import errno
import importlib
import importlib.util
import sys
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster import one_step, storage
from cluster.health import Health, watched
from encoders import ENCODERS, TRANSCRIBERS
from jobs import ensemble
from jobs.catalog import run_names

TOYS = str(Path(__file__).parent / "toys")

spec = importlib.util.spec_from_file_location(
    "small_root", Path(__file__).with_name("small_root.py")
)
small_root = importlib.util.module_from_spec(spec)
spec.loader.exec_module(small_root)


@pytest.fixture(scope="session", autouse=True)
def unregistered():
    """The hundred bundles of tests are not registered: every root would get a database of MLflow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ensemble, "record_bundle", lambda *_, **__: None)
        yield


@pytest.fixture(scope="session")
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


@pytest.fixture
def sealed(monkeypatch):
    """Makes a folder read-only, also for root: whatever is written below it is refused."""

    def seal(folder: str) -> None:
        write = one_step.in_one_step

        def refuse(path, **options):
            if path.startswith(folder):
                raise OSError(errno.EROFS, "Read-only file system", path)
            return write(path, **options)

        for module in (storage, run_names):
            monkeypatch.setattr(module, "in_one_step", refuse)

    return seal


@pytest.fixture(scope="session")
def sound():
    """Fails where Ray counts a death, an eviction, a lost machine or a spill that nobody asked for."""

    @contextmanager
    def check(**expected):
        with watched() as watch:
            yield
        found = asdict(watch.health)
        assert found | expected == found, watch.health.complaints
        assert set(watch.health.complaints) <= set(Health(**expected).complaints)

    return check


@pytest.fixture(scope="module")
def toys():
    """The toy encoders registered, here and in workers; a corpus and a bundle made for them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOYS)
        patch.setenv("PYTHONPATH", TOYS)
        patch.setitem(ENCODERS, "toy_audio", "toy_audio")
        patch.setitem(ENCODERS, "toy_text", "toy_text")
        patch.setitem(TRANSCRIBERS, "toy_ear", "toy_ear")
        yield SimpleNamespace(
            corpus=importlib.import_module("toy_corpus"),
            bundle=importlib.import_module("toy_bundle"),
        )
        for name in [name for name in sys.modules if name.startswith("toy_")]:
            del sys.modules[name]
