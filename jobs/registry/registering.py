"""A bundle into MLflow's model registry: files, signature, an example, requirements and the card."""

import contextlib
import shlex
import shutil
import warnings
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jobs
from cluster import storage
from cluster.mlflow_store import Guard, tracking_uri
from cluster.model_registry import ModelRegistry, ModelVersion
from cluster.scratch import scratch_folder
from fusion.tasks import Task
from jobs.catalog import bundles, layout
from jobs.catalog.judged_files import judged_file
from jobs.library.loaded_bundle import LoadedBundle, load
from jobs.registry.model_card import card_of
from jobs.scoring.bundle import imported_widths

REQUIREMENTS = (
    "afx-audio", "ai-edge-litert", "av", "duckdb", "fsspec", "h5py", "jaxtyping", "mlflow", "numpy", "pandas",
    "pyarrow", "ray", "safetensors", "scipy", "silero-vad", "soundfile", "torch", "transformers", "tyro",
)  # fmt: skip
"""What scoring imports."""

SERVER_S = 120.0
"""How long a server may take for the files of a bundle."""

CODE = ("affuse.py", "cluster", "encoders", "fusion", "jobs")


def record_bundle(root: str, name: str, *, tracking: bool = True) -> None:
    """Write the card of a bundle and register it; a registry that is away or off costs one line.

    A bundle of imported predictions is not registered: it says nothing of other clips.
    """
    write_card(root, name)
    if not tracking or bundles.members_elsewhere(bundles.read_bundle(root, name)):
        return
    uri = tracking_uri(root)
    if uri is None:
        print(f"model registry: off; {root} is remote and MLFLOW_TRACKING_URI names no server")
        return
    found: ModelVersion | None = Guard(uri)(lambda: register(root, name), within_s=SERVER_S)
    again = f"affuse bundle register --root {shlex.quote(root)} --bundle {name}"
    print(f"not registered; later: {again}" if found is None else f"registered as {found.uri}")


def write_card(root: str, name: str) -> str:
    """Write MODEL_CARD.md into the folder of a bundle; returns its text.

    Raises:
        NotPreparedError: there is no such bundle.
    """
    uri = layout.bundle_uri(root, name)
    text = card_of(bundles.read_bundle(root, name), results_of(uri), dataset_of(root))
    storage.publish_bytes(text.encode(), storage.join(uri, layout.MODEL_CARD))
    return text


def register(root: str, name: str, model_name: str | None = None) -> ModelVersion:
    """Make a bundle the next version of a registered model; one that is there is found.

    Args:
        root: the dataset.
        name: of the bundle under it.
        model_name: of the registered model; None: the bundle's.

    Raises:
        NotPreparedError: there is no such bundle, or the registry does not answer.
    """
    facts = bundles.read_bundle(root, name)
    tags = {
        "affuse.bundle": name,
        "affuse.task": str(facts["task"]),
        "affuse.dataset": str(facts.get("dataset", "")),
        "affuse.manifest": str(facts.get("manifest", "")),
        "affuse.sha256": bundles.digest(facts),
    }
    registry = ModelRegistry(root)
    there = registry.newest(model_name or name, {"affuse.sha256": tags["affuse.sha256"]})
    if there is not None:
        return there
    opened = load(name, root=root)

    def save(path: str, model: Any) -> None:
        with local_folder(layout.bundle_uri(root, name)) as folder:
            save_model(opened, folder, path, model)

    return registry.write(model_name or name, tags, save)


def save_model(opened: LoadedBundle, folder: str, path: str, model: Any = None) -> None:
    """Write a bundle as a folder that `mlflow.pyfunc.load_model` opens.

    Args:
        opened: the bundle.
        folder: its folder, on this machine.
        path: of the new folder.
        model: mlflow.models.Model, where it has an id.
    """
    source = Path(str(jobs.__file__)).parents[1]
    with scratch_folder() as code, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of signatures that it would infer; it is given one
        import mlflow.pyfunc

        mlflow.pyfunc.save_model(
            path,
            python_model=str(source / "jobs" / "registry" / "pyfunc_script.py"),
            artifacts={"bundle": folder},
            code_paths=_code(source, Path(code)),
            signature=signature_of(opened),
            input_example=example_of(opened),
            pip_requirements=requirements(),
            mlflow_model=model,
        )


def signature_of(opened: LoadedBundle) -> Any:
    """Columns that go in (none of them has to be there) and come out."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import Array, DataType

    texts = ("clip", "text", "name", "dialogue", "speaker")
    given = [ColSpec("string", name, required=False) for name in texts]
    given += [ColSpec("double", name, required=False) for name in ("start_s", "end_s", "turn")]
    steps = Array(Array(DataType.double))
    given += [ColSpec(steps, name, required=False) for name in opened.inputs]
    return ModelSignature(inputs=Schema(given), outputs=Schema(_answers(opened.task)))


def example_of(opened: LoadedBundle) -> Any:
    """A frame that any bundle scores: a text, or an input of one step."""
    import pandas as pd

    if opened.inputs:
        widths = imported_widths(opened.bundle.facts)
        return pd.DataFrame({name: [[[0.0] * widths[name]]] for name in opened.inputs})
    return pd.DataFrame({"text": ["what a lovely day"]})


def _answers(task: Task) -> list[Any]:
    from mlflow.types import ColSpec

    numbers = ["value"]
    if task.kind != "regression":
        numbers = ["confidence", *(f"p_{name}" for name in task.classes)]
    texts = ["name", *([] if task.kind == "regression" else ["label"])]
    return [
        *(ColSpec("string", name, required=name == "name") for name in texts),
        *(ColSpec("double", name, required=False) for name in numbers),
        *(ColSpec("string", name, required=False) for name in ("modalities", "status", "error")),
    ]


def requirements() -> list[str]:
    """What scoring needs, in the versions that are here."""
    found = []
    for name in REQUIREMENTS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            # +cpu and the like are builds of one machine.
            found.append(f"{name}=={metadata.version(name).partition('+')[0]}")
    return found


def _code(source: Path, target: Path) -> list[str]:
    """Copies of the packages, without what Python compiled of them."""
    found = []
    for name in CODE:
        here, there = source / name, target / name
        if not here.exists():  # a cluster is shipped the packages alone
            continue
        if here.is_dir():
            shutil.copytree(here, there, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        else:
            shutil.copy(here, there)
        found.append(str(there))
    return found


@contextlib.contextmanager
def local_folder(uri: str) -> Iterator[str]:
    """The folder of a bundle on this machine: in place, or a copy for as long as the block."""
    fs, path = storage.filesystem(storage.absolute(uri))
    if storage.is_local(uri):
        yield path
        return
    with scratch_folder() as folder:
        copy = Path(folder, uri.rstrip("/").rsplit("/", 1)[-1])
        fs.get(path, str(copy), recursive=True)
        yield str(copy)


def results_of(uri: str) -> Mapping[str, Any] | None:
    """How a bundle was judged; None where it was not.

    Raises:
        NotPreparedError: the making of the bundle was stopped half-way.
    """
    if not storage.exists(storage.join(uri, layout.RESULTS)):
        return None
    return dict(storage.read_json(judged_file(uri, layout.RESULTS)))


def dataset_of(root: str) -> Mapping[str, Any] | None:
    """The facts of a dataset; None where there is none."""
    return _read(layout.dataset_uri(root)) if root else None


def _read(uri: str) -> Mapping[str, Any] | None:
    return dict(storage.read_json(uri)) if storage.exists(uri) else None
