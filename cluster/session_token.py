"""The token of a local session: random, in the environment alone, gone with the session.

Ray listens on every interface of the machine whatever address it is given, and runs whatever it is sent;
with a token it accepts only requests that carry it. Processes that Ray starts inherit it. Ray would otherwise
write a token of its own into the home folder, or accept every request where RAY_AUTH_MODE=disabled stands in
the environment.
"""

import importlib
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

SETTINGS = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ENABLE_K8S_TOKEN_AUTH")
"""All variables from which Ray learns whether there is a token, and which."""


@contextmanager
def fresh_token(chosen: str | None = None) -> Iterator[None]:
    """Require a token of whatever Ray starts in this block; the user's own settings return after it.

    Args:
        chosen: the token, where somebody has to know it; by default 256 random bits that nobody sees.
    """
    kept = {name: os.environ.get(name) for name in SETTINGS}
    token = chosen or secrets.token_hex(32)
    _set({**dict.fromkeys(SETTINGS), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token})
    try:
        yield
    finally:
        _set(kept)


def _set(values: Mapping[str, str | None]) -> None:
    raylet: Any = importlib.import_module("ray._raylet")  # whose stub knows neither of the two
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    # Ray reads each of them once a process. The mode comes first: a thread of the session before that
    # still drains would otherwise look for a token that is gone, and abort.
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()
