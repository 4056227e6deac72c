"""The house stands as design says: registries equal files, floors hold, imports are light."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from encoders import ENCODERS, TRANSCRIBERS
from fusion.late import LATE
from fusion.losses import LOSSES
from fusion.nets import NETS
from jobs import JOBS
from jobs.datasets import DATASETS

ROOT = Path(__file__).resolve().parent.parent
SHARED_FILES = {"members", "calibration"}  # of fusion.late: not rules


def files(folder: str) -> list[str]:
    return sorted(p.stem for p in (ROOT / folder).glob("*.py") if not p.stem.startswith("_"))


@pytest.mark.parametrize(
    ("registry", "folder"),
    [
        (JOBS, "jobs"),
        (DATASETS, "jobs/datasets"),
        (NETS, "fusion/nets"),
        (LATE, "fusion/late"),
        (LOSSES, "fusion/losses"),
    ],
    ids=["jobs", "datasets", "nets", "late", "losses"],
)
def test_registry_keys_are_the_file_names_in_alphabetical_order(registry, folder):
    assert list(registry) == [name for name in files(folder) if name not in SHARED_FILES]


def test_every_encoder_key_is_the_name_of_its_file():
    for name, module in {**ENCODERS, **TRANSCRIBERS}.items():
        assert module.rsplit(".", 1)[-1] == name
        assert importlib.import_module(module).SPEC.name == name
    assert list(ENCODERS) == sorted(ENCODERS)


@pytest.mark.parametrize("package", ["jobs", "encoders", "fusion", "cluster"])
def test_the_generic_package_names_resolve_to_this_checkout(package):
    module = importlib.import_module(package)
    assert Path(module.__file__).resolve().is_relative_to(ROOT)


def test_listing_encoders_imports_no_heavy_library():
    code = (
        "import sys, encoders.spec as s, encoders as e;"
        "[s.find(n) for n in {**e.ENCODERS, **e.TRANSCRIBERS}];"
        "print([m for m in ('torch', 'transformers', 'ray', 'pandas') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert out.stdout.strip() == "[]", out.stderr
