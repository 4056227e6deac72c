"""Shapes are checked in every test: the hook is installed before any import of ours."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
# A process of pytest-xdist has it at 80; what tests read is written to a pipe, as wide as it likes.
os.environ.pop("COLUMNS", None)

from jaxtyping import install_import_hook

install_import_hook(["fusion", "encoders"], "beartype.beartype")

import hypothesis  # noqa: E402

hypothesis.settings.register_profile("default", derandomize=True, deadline=None, max_examples=25)
hypothesis.settings.load_profile("default")
