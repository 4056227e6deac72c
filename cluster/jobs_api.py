"""A connection to the Jobs API of a running Ray cluster: the address, the token, the version.

Ray runs whatever it is sent, so the Jobs port must never face a network without token authentication. The
token is taken from a file or the environment, sent as a header, and never printed or put into the job.
"""

import ipaddress
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cluster.errors import ConfigError, SubmissionError
from cluster.shipping import project_metadata

PASSED_BY_RAY = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""Variables that Ray's client prefers over the address it is given, in this order."""

TALKING = (
    "ray._private.runtime_env",
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
)
"""Ray's loggers that tell of each package and connection, between the lines of the job; each has a level of
its own, set when it is imported."""


def read_token(path: str | None, environment: Mapping[str, str]) -> str | None:
    """The token that the cluster asks for, from where Ray looks for it.

    Args:
        path: a file; wins over the environment.
        environment: `RAY_AUTH_TOKEN`, else `RAY_AUTH_TOKEN_PATH`, else ``~/.ray/auth_token``.

    Returns:
        The token, or None where there is none to be found.

    Raises:
        SubmissionError: a file that was named is absent, or holds no token.
    """
    if path is None and environment.get("RAY_AUTH_TOKEN"):
        return _one_word(environment["RAY_AUTH_TOKEN"], "RAY_AUTH_TOKEN", "ray get-auth-token")
    named = path or environment.get("RAY_AUTH_TOKEN_PATH")
    # No home folder at all is a file that is not there.
    file = Path(os.path.expanduser(named)) if named else _default_token_file(environment)
    try:
        said = file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        if named is None:
            return None
        raise SubmissionError(
            f"token file {file}: {error.strerror}; type: ray get-auth-token > {file}"
        ) from error
    return _one_word(said, f"token file {file}", f"ray get-auth-token > {file}")


def _one_word(said: str, where: str, mend: str) -> str:
    """A token as it can stand in a header: one word of ASCII; nothing of it is repeated in a message."""
    token = said.strip()
    if not token:
        raise SubmissionError(f"{where} is empty; type: {mend}")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise SubmissionError(f"{where} holds more than one word of ASCII letters; type: {mend}")
    return token


def _default_token_file(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("HOME") or os.path.expanduser("~")) / ".ray" / "auth_token"


def connect(address: str, token: str | None, environment: Mapping[str, str]) -> Any:
    """A client of the cluster's Jobs API, after its version and the token were tried.

    Args:
        address: ``http://host:8265`` or ``https://...``.
        token: sent as a bearer header.
        environment: refused where a variable would send the job to another cluster.

    Raises:
        ConfigError: not an address of the Jobs API.
        SubmissionError: nobody answers, the token is refused, or the cluster runs another Ray.
    """
    check_address(address)
    for name in PASSED_BY_RAY:
        other = environment.get(name)
        if other and other.rstrip("/") != address.rstrip("/"):
            raise SubmissionError(
                f"{name}={other} would win over --address {address}; type: unset {name}"
            )
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    _check_version(address, _ask_version(address, headers))
    from ray.job_submission import JobSubmissionClient

    for name in TALKING:
        logging.getLogger(name).setLevel(logging.WARNING)
    return JobSubmissionClient(address, headers=headers)


def check_address(address: str) -> None:
    """Refuse what is not the URL of a Jobs API.

    Raises:
        ConfigError: with the form that is expected.
    """
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            f"--address {address!r}: expected the dashboard's URL such as http://127.0.0.1:8265, "
            "not Ray's own port"
        )


def is_loopback(address: str) -> bool:
    """Whether an address names this machine (a tunnel to a cluster does too)."""
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _ask_version(address: str, headers: Mapping[str, str]) -> str:
    import requests

    try:
        answer = requests.get(
            f"{address.rstrip('/')}/api/version", headers=dict(headers), timeout=20
        )
    except requests.exceptions.RequestException as error:
        raise SubmissionError(
            f"no Ray cluster answers at {address} ({type(error).__name__}); is the tunnel open? "
            "type: ssh -N -L 8265:127.0.0.1:8265 HEAD, or kubectl port-forward service/HEAD 8265"
        ) from error
    if answer.status_code in (401, 403):
        said = "needs a token" if answer.status_code == 401 else "refused the token"
        raise SubmissionError(
            f"the cluster at {address} {said}; type: ray get-auth-token > FILE on its head node, "
            "and give --token-path FILE"
        )
    try:
        return str(answer.json()["ray_version"])
    except (ValueError, KeyError, TypeError) as error:
        raise SubmissionError(
            f"what answers at {address} is not a Ray dashboard (HTTP {answer.status_code})"
        ) from error


def _check_version(address: str, version: str) -> None:
    from packaging.requirements import Requirement

    ray = next(
        requirement
        for requirement in map(Requirement, project_metadata()["dependencies"])
        if requirement.name == "ray"
    )
    if not ray.specifier.contains(version, prereleases=True):
        raise SubmissionError(
            f"the cluster at {address} runs Ray {version}, this project needs ray{ray.specifier}; "
            "start it from an image with such a Ray"
        )
