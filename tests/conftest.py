"""Shapes are checked in every test: the hook is installed before any import of ours."""

import functools
import os
import shutil
from collections import Counter
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
# A process of pytest-xdist has it at 80; what tests read is written to a pipe, as wide as it likes.
os.environ.pop("COLUMNS", None)

import jaxtyping

CHECKED_CALLS = 20
"""How often one test has the shapes of a function checked: a thousand more calls show nothing more."""

calls: Counter[Callable[..., object]] = Counter()
"""Calls of each function with shapes in the test that runs."""


def first_calls_checked(typechecker: Callable[..., object]) -> Callable[..., object]:
    """In place of `jaxtyping.jaxtyped`, which the import hook writes before functions and classes."""
    checked_always = jaxtyped(typechecker=typechecker)

    def decorate(function):
        checked = checked_always(function)
        if isinstance(function, type):
            return checked

        @functools.wraps(function)
        def call(*args, **kwargs):
            calls[function] += 1
            return (checked if calls[function] <= CHECKED_CALLS else function)(*args, **kwargs)

        return call

    return decorate


jaxtyped, jaxtyping.jaxtyped = jaxtyping.jaxtyped, first_calls_checked
jaxtyping.install_import_hook(["fusion", "encoders"], "beartype.beartype")

import hypothesis  # noqa: E402
import pytest  # noqa: E402

hypothesis.settings.register_profile("default", derandomize=True, deadline=None, max_examples=25)
hypothesis.settings.load_profile("default")


@functools.cache
def missing_weights() -> str:
    """Why the pretrained weights of the offline stack are not in the store; empty where they are."""
    from cluster.errors import WeightsError
    from encoders import store
    from jobs.models import chosen_encoders

    try:
        for descriptor in chosen_encoders(()):
            store.mirror(descriptor.weights, store.default_store(""))
    except WeightsError as error:
        return f"the offline weights cannot be had: {error}"
    return ""


@pytest.fixture(scope="session", autouse=True)
def databases_begin_as_copies(tmp_path_factory):
    """A new MLflow database is the copy of one that was made once: MLflow's migrations take 1.5 s of CPU."""
    from cluster import mlflow_store

    ready = tmp_path_factory.mktemp("mlflow") / "ready.db"
    claim_database = mlflow_store._claim_database

    def claim_ready_database(place: str) -> None:
        from mlflow.tracking import MlflowClient

        claim_database(place)
        if os.path.isabs(place) and os.path.getsize(place) == 0:
            if not ready.exists():
                MlflowClient(tracking_uri=f"sqlite:///{ready}").search_experiments()
            try:
                shutil.copyfile(ready, place)
            except OSError:  # a test of a full disk: what MLflow makes of it is to be seen
                os.truncate(place, 0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlflow_store, "_claim_database", claim_ready_database)
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logstart() -> None:
    """Check the first calls of every function anew in each test."""
    calls.clear()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Bring the weights before any fixture of a test asks for them, whichever test is the first to do so."""
    if item.get_closest_marker("weights") and (reason := missing_weights()):
        pytest.skip(reason)
