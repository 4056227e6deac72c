"""The toy of that name, as a module of the registry."""

from toy_encoders import MOOD as SPEC

__all__ = ["SPEC"]
