"""Where scripts outside this checkout look for the reading of features: `jobs.catalog.features`."""

from jobs.catalog.features import read_features, resolve_features

__all__ = ["read_features", "resolve_features"]
