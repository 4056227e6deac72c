"""Shapes are checked in every test: the hook is installed before any import of ours."""

import functools
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
# A process of pytest-xdist has it at 80; what tests read is written to a pipe, as wide as it likes.
os.environ.pop("COLUMNS", None)

from jaxtyping import install_import_hook

install_import_hook(["fusion", "encoders"], "beartype.beartype")

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


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Bring the weights before any fixture of a test asks for them, whichever test is the first to do so."""
    if item.get_closest_marker("weights") and (reason := missing_weights()):
        pytest.skip(reason)
