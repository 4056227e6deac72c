"""A bundle as a model of MLflow, from code: MLflow runs this file beside the bundle's folder, no pickle.

It is copied into the model, with the packages that it imports.
"""

from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class BundleModel(PythonModel):  # type: ignore[misc]
    """Scores frames; see `LoadedBundle.predict`."""

    def load_context(self, context: Any) -> None:
        """Open the bundle; its models are loaded by the first prediction."""
        from jobs.library.loaded_bundle import load

        self._bundle = load(context.artifacts["bundle"])

    # Of a method without annotations MLflow warns wherever the model is opened; frames it takes for no
    # signature of its own.
    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """A row of scores for each row."""
        return self._bundle.predict(model_input)


set_model(BundleModel())
