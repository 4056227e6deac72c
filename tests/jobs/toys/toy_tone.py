"""The toy of that name, as a module of the registry."""

from toy_encoders import TONE as SPEC

__all__ = ["SPEC"]
