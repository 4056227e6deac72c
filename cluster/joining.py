"""Join a running Ray cluster: find out in seconds whether it answers, and send it the sources."""

import logging
import os
from pathlib import Path
from typing import Any

from cluster import interrupt
from cluster.errors import PlanError
from cluster.scratch import scratch_folder
from cluster.shipping import stage

QUIET: dict[str, Any] = {
    "log_to_driver": False,
    "logging_level": logging.ERROR,
    "configure_logging": True,
}
"""How every session is opened: a job prints its own lines."""

ANSWER_S = 8.0
"""How long a cluster may take to answer; Ray itself tries for a minute and a half, in silence."""

_TOKEN = "asks for its token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH=FILE of the cluster's token"


def join(address: str) -> None:
    """Connect to the cluster at an address.

    Args:
        address: ``auto``, ``host:port`` or ``ray://host:port``.

    Raises:
        PlanError: nobody answers there, or who answers does not let us in.
    """
    import ray
    from ray.exceptions import RayError

    _check_answers(address)
    with scratch_folder() as folder:
        try:
            ray.init(address=address, runtime_env=_runtime_env(Path(folder)), **QUIET)
            interrupt.obey_again()
        except (ConnectionError, RuntimeError, ValueError, RayError) as error:
            raise PlanError(f"{_named(address)} answers but refuses: {_first(error)}") from error


def _check_answers(address: str) -> None:
    import grpc

    host = _gcs(address)
    try:
        _ask(host, is_client=address.startswith("ray://"))
    except grpc.RpcError as error:
        if error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            raise PlanError(f"{_named(address)} {_TOKEN}") from error
        why = f"{host}: {error.code().name.lower().replace('_', ' ')}"
        raise PlanError(f"{_named(address)}: no Ray cluster answers ({why}); {_away()}") from error
    except grpc.FutureTimeoutError as error:
        raise PlanError(
            f"{_named(address)}: nobody answers in {ANSWER_S:.0f} s; {_away()}"
        ) from error


def _gcs(address: str) -> str:
    """``host:port`` of the cluster's head, after our own settings of tokens were checked."""
    from ray._private.authentication import authentication_token_setup as setup
    from ray._private.services import canonicalize_bootstrap_address
    from ray.exceptions import AuthenticationError

    try:
        if address == "auto":
            setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
        setup.ensure_token_if_auth_enabled(create_token_if_missing=False)
        return str(canonicalize_bootstrap_address(address.removeprefix("ray://")))
    except AuthenticationError as error:
        raise PlanError(f"{_named(address)}: {_first(error)}; {_TOKEN}") from error
    except (ConnectionError, ValueError) as error:
        raise PlanError(f"{_named(address)}: {_first(error)}; {_away()}") from error


def _ask(host: str, *, is_client: bool) -> None:
    import grpc
    from ray._private.grpc_utils import init_grpc_channel
    from ray._private.ray_constants import GLOBAL_GRPC_OPTIONS
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

    channel = init_grpc_channel(host, GLOBAL_GRPC_OPTIONS)
    try:
        if is_client:  # the port of Ray's client knows no such question
            grpc.channel_ready_future(channel).result(ANSWER_S)
        else:
            head = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
            head.CheckAlive(gcs_service_pb2.CheckAliveRequest(), timeout=ANSWER_S)
    finally:
        channel.close()


def _named(address: str) -> str:
    """The address, and which setting it comes from."""
    given = os.environ.get("RAY_ADDRESS")
    return f"RAY_ADDRESS={given}" if given and address in (given, "auto") else address


def _away() -> str:
    way = "unset RAY_ADDRESS" if os.environ.get("RAY_ADDRESS") else "leave --session.address out"
    return f"type: {way}, or --session.address local, to run on this machine"


def _first(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _runtime_env(folder: Path) -> dict[str, Any] | None:
    """Our sources, unless the job was submitted with a working directory already."""
    if os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"):
        return None
    return {"working_dir": str(stage(folder))}
