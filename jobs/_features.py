"""Former place of `jobs.catalog.features`, for scripts outside this checkout."""

from jobs.catalog.features import read_features, resolve_features

__all__ = ["read_features", "resolve_features"]
