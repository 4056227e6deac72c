"""A bundle as a model of MLflow, from code: MLflow runs this file beside the bundle's folder, no pickle.

It is copied into the model, with the packages that it imports.
"""

from typing import Any

from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class BundleModel(PythonModel):  # type: ignore[misc]
    """Scores frames; see `LoadedBundle.predict`."""

    def load_context(self, context: Any) -> None:
        """Open the bundle; its models are loaded by the first prediction."""
        from jobs.library.loaded_bundle import load

        self._bundle = load(context.artifacts["bundle"])

    # MLflow takes annotations for a signature of its own.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        """A row of scores for each row."""
        return self._bundle.predict(model_input)


set_model(BundleModel())
