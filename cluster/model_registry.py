"""MLflow's model registry: models with versions and aliases such as `champion`.

It is the store that runs are recorded in: what MLFLOW_TRACKING_URI names, else a database under a local root.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cluster import storage
from cluster.errors import ConfigError, NotPreparedError, StorageError
from cluster.mlflow_store import Experiment, quiet_mlflow, refused, tracking_uri
from cluster.redaction import redacted
from cluster.scratch import claim_scratch, scratch_folder
from cluster.settings import REGISTERED

T = TypeVar("T")

URI = re.compile(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))")


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """One version of a registered model."""

    name: str
    version: str
    source: str
    """Where its files lie."""

    tags: Mapping[str, str]

    @property
    def uri(self) -> str:
        """As MLflow takes it."""
        return f"{REGISTERED}{self.name}/{self.version}"


class ModelRegistry:
    """The registry of a root.

    Args:
        root: the dataset; empty: MLFLOW_TRACKING_URI has to name the registry.

    Raises:
        NotPreparedError: there is none, or it does not answer.
    """

    def __init__(self, root: str) -> None:
        quiet_mlflow()
        self._root, uri = root, _registry_uri(root)
        self._uri = uri
        self._experiment: Experiment = self._asked(lambda: Experiment.shared(root or uri, uri))

    def write(
        self, name: str, tags: Mapping[str, str], save: Callable[[str, Any], None]
    ) -> ModelVersion:
        """Log a model and make it the next version of a registered one.

        Args:
            name: of the registered model.
            tags: facts about the version.
            save: writes the model into a folder (path, mlflow.models.Model).
        """
        from mlflow.entities import LoggedModelStatus
        from mlflow.models import Model

        client = self._experiment.client

        def log() -> ModelVersion:
            logged = client.create_logged_model(
                self._experiment.experiment, name=name, tags=dict(tags)
            )
            with scratch_folder() as folder:
                path = str(Path(folder, "model"))
                save(path, Model(model_id=logged.model_id))
                client.log_model_artifacts(logged.model_id, path)
            client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
            if not client.search_registered_models(f"name = '{name}'"):
                client.create_registered_model(name)
            found = client.create_model_version(
                name, source=logged.artifact_location, model_id=logged.model_id, tags=dict(tags)
            )
            return _version(found)

        with _everywhere(self._uri):
            return self._asked(log)

    def version(self, uri: str) -> ModelVersion:
        """The version that `models:/NAME@ALIAS` or `models:/NAME/VERSION` means.

        Raises:
            ConfigError: it is no such text.
            NotPreparedError: there is none.
        """
        if (match := URI.fullmatch(uri)) is None:
            raise ConfigError(f"{uri}: expected models:/NAME@ALIAS or models:/NAME/VERSION")
        name, alias, number = match.groups()
        found = self.find(name, alias) if alias else self._numbered(name, number)
        if found is None:
            raise NotPreparedError(
                f"{uri}: {redacted(self._uri)} has no such model; type: affuse bundle register --root ROOT "
                "--bundle NAME, then: affuse bundle promote"
            )
        return found

    def find(self, name: str, alias: str) -> ModelVersion | None:
        """The version that has an alias; None where there is none."""
        from mlflow.exceptions import MlflowException

        def look() -> ModelVersion | None:
            try:
                return _version(self._experiment.client.get_model_version_by_alias(name, alias))
            except MlflowException as error:
                if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    return None
                raise

        return self._asked(look)

    def newest(self, name: str, tags: Mapping[str, str]) -> ModelVersion | None:
        """The newest version with some tags; None where there is none."""

        def look() -> ModelVersion | None:
            found = map(_version, self._experiment.client.search_model_versions(f"name = '{name}'"))
            fit = [each for each in found if all(each.tags.get(k) == v for k, v in tags.items())]
            return max(fit, key=lambda each: int(each.version), default=None)

        return self._asked(look)

    def move(self, alias: str, to: ModelVersion) -> None:
        """Give an alias to a version; whatever had it has it no more."""
        self._asked(
            lambda: self._experiment.client.set_registered_model_alias(to.name, alias, to.version)
        )

    def folder(self, version: ModelVersion) -> str:
        """Where the files of a version can be read: in place, or in a copy until this process ends."""
        if storage.is_local(version.source):
            return storage.filesystem(storage.absolute(version.source))[1]
        from mlflow.artifacts import download_artifacts

        path = str(claim_scratch())
        return str(
            self._asked(
                lambda: download_artifacts(
                    artifact_uri=version.source, dst_path=path, tracking_uri=self._uri
                )
            )
        )

    def _numbered(self, name: str, number: str) -> ModelVersion | None:
        found = self._asked(
            lambda: self._experiment.client.search_model_versions(f"name = '{name}'")
        )
        return next((_version(each) for each in found if str(each.version) == number), None)

    def _asked(self, act: Callable[[], T]) -> T:
        """What MLflow answers.

        Raises:
            NotPreparedError: it does not answer.
            StorageError: its disk is full or closed.
        """
        try:
            return act()
        except Exception as error:
            from mlflow.exceptions import MlflowException

            if not isinstance(error, MlflowException | ValueError | OSError):
                raise
            if (said := refused(error, self._uri)) is not None:
                raise StorageError(redacted(said)) from error
            line = next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
            raise NotPreparedError(
                f"MLflow at {redacted(self._uri)} does not answer: {redacted(line)}"
            ) from error


@contextlib.contextmanager
def _everywhere(uri: str) -> Iterator[None]:
    """MLflow looks a logged model up in the store of the process, whichever client asks.

    It keeps the store in the environment, which is as before afterwards: later roots have others.
    """
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)


def is_model_uri(text: str) -> bool:
    """Whether a text names a registered model and not a folder."""
    return text.startswith(REGISTERED)


def _registry_uri(root: str) -> str:
    uri = tracking_uri(root) if root else tracking_uri("s3://")
    if uri is None:
        where = f"{root} is remote" if root else "type: --root ROOT (in Python root='ROOT')"
        raise NotPreparedError(
            f"which model registry? {where}{';' if root else ', or'} set MLFLOW_TRACKING_URI"
        )
    return uri


def _version(found: Any) -> ModelVersion:
    return ModelVersion(
        name=found.name, version=str(found.version), source=str(found.source), tags=dict(found.tags)
    )
