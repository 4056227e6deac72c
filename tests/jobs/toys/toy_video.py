"""The toy of that name, as a module of the registry."""

from toy_encoders import VIDEO as SPEC

__all__ = ["SPEC"]
